/* SPDX-License-Identifier: GPL-2.0-only */
/* Bodies that nobody needs to look into, in both directions of an exchange (blind.c). */
#ifndef KMESH_GATE_BLIND_H
#define KMESH_GATE_BLIND_H

#include "exchange.h"

enum blind_result {
	BLIND_NOT,   /* it is not for this way */
	BLIND_MOVED, /* bytes were moved, or wait for room */
	BLIND_LATER, /* there are none now */
	BLIND_ENDED, /* the end of the stream */
	BLIND_FAILED,
};

enum blind_result blind_request(struct exchange *exchange);
enum blind_result blind_response(struct exchange *exchange);
/* What is held goes on; false: it cannot any more. */
bool blind_flush_request(struct exchange *exchange);
bool blind_flush_response(struct exchange *exchange);

#endif
