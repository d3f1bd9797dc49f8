/* SPDX-License-Identifier: GPL-2.0-only */
/* Whether a request that the tables cannot answer can be told from what follows it. */
#ifndef KMESH_GATE_HEAD_H
#define KMESH_GATE_HEAD_H

#include <stddef.h>

enum head_kind {
	HEAD_MORE,   /* so far it can: the head goes on */
	HEAD_PLAIN,  /* no two readers can differ about where the request ends */
	HEAD_UNSURE, /* they can, or it is no request of HTTP/1 */
};

/* Bytes from a request's first on; they may go beyond its head. */
enum head_kind head_judge(const char *data, size_t length);

#endif
