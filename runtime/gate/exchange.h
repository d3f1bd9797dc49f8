/* SPDX-License-Identifier: GPL-2.0-only */
/* What both halves of an exchange need (exchange.c, response.c). */
#ifndef KMESH_GATE_EXCHANGE_H
#define KMESH_GATE_EXCHANGE_H

#include "bulk.h"
#include "frame.h"
#include "gate.h"
#include "stat.h"

struct exchange {
	struct session *session;
	struct upstream *upstream;
	struct frame request, response;
	struct buffer unsent; /* of the request, for the upstream */
	struct bulk up, down; /* of either, and then nothing is in a buffer */
	struct route route;
	struct measure measure;
	struct pool *waits_in; /* for a connection of its endpoint's (breaker.c) */
	struct exchange *waiting_next, *waiting_previous;
	struct exchange *scarce_next, *scarce_previous; /* of those that wait for room (scarce.c) */
	uint64_t scarce_since;				/* 0: it does not */
	uint8_t dials;
	uint8_t up_streak, down_streak; /* of a tunnel: large reads, up to BULK_STREAK */
	bool head, connect;		/* the method */
	bool of_kernel;
	bool request_done;
	bool request_kept; /* the client does not ask to close */
	bool response_begun;
	bool response_done;
	bool discards; /* nobody takes what is left of the request */
	bool ended;    /* the request's end is the end of the client's stream */
	bool tunnel;   /* another protocol by now, or nobody's to understand */
	bool acted;    /* it was begun to be served */
	bool closes;   /* the client's connection ends with this */
	bool scarce;   /* its last dial found no number, or no descriptor */
	/* Where the gate governs. */
	bool pending;	 /* it has no connection yet */
	bool counted;	 /* it has */
	bool overloaded; /* a circuit breaker keeps it from having one */
};

static inline uint8_t next_streak(uint8_t streak, size_t got)
{
	if (got < BULK_READ)
		return 0;
	return streak < BULK_STREAK ? streak + 1 : streak;
}

void exchange_leave_upstream(struct exchange *exchange, bool reset);
/* Both are over: true, and there is no exchange any more. */
bool exchange_finish(struct exchange *exchange);
/* The gate's own answer, when no response has begun; the exchange may be over then. */
void exchange_answer(struct exchange *exchange, int status, const char *reason);
/* The upstream is gone, or says what is not HTTP. */
void exchange_lose(struct exchange *exchange, int status, const char *reason);

#endif
