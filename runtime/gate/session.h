/* SPDX-License-Identifier: GPL-2.0-only */
/* What session.c and work.c have of each other. */
#ifndef KMESH_GATE_SESSION_H
#define KMESH_GATE_SESSION_H

#include "gate.h"

struct kmesh_slot *session_slot(const struct session *session);
/* The upstream that has the request that the kernel took. */
struct upstream *session_upstream_of_kernel(const struct session *session);
bool session_may_end(struct session *session);
bool session_may_answer(struct session *session);
/* What it is to be woken for. */
void session_watch(struct session *session);
void session_ready(struct watch *watch, uint32_t events);
void session_flush(struct session *session);
/* Nothing can be made of what comes: say so, and end. */
void session_refuse(struct session *session, const struct route *route);
/* The end of the connection; of an exchange there must be none. */
void session_drop(struct session *session, bool reset);

#endif
