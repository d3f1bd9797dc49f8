/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Clusters that the gate alone chooses endpoints of, because it counts or watches what they do:
 * circuit breakers, outlier detection, priorities, weighted localities. What is counted is one
 * network namespace's, as it is one sidecar's; all of it is as Envoy has it
 * (source/common/upstream, source/common/conn_pool).
 */
#ifndef KMESH_GATE_GOVERN_H
#define KMESH_GATE_GOVERN_H

#include "gate.h"
#include "roster.h"

/* What outlier detection knows of an endpoint; the next gate is told. */
struct member_past {
	/* In a row. */
	uint32_t failures; /* 5xx, and connections that failed where they are not told apart */
	uint32_t gateway_failures;
	uint32_t local_failures;
	uint32_t times; /* that it stays out for `base_ms` */
	uint64_t ejected_at, returned_at;
	uint64_t ejected; /* 0 or 1 */
};

struct member {
	const struct kmesh_http_member *is;
	uint32_t active; /* requests */
	uint32_t group;	 /* of the roster's */
	struct member_past past;
};

static inline bool member_is_healthy(const struct member *member)
{
	return member->is->flags & KMESH_MEMBER_HEALTHY && !member->past.ejected;
}

/* Endpoints of which one is chosen, by weights that others do not have. */
struct set {
	double share, until; /* of requests, and with those of the sets before it */
	uint32_t first, count;
	const uint64_t *weights; /* sums.h */
	uint64_t before, total;	 /* of them */
	uint32_t each;		 /* what every one weighs; 0: they differ */
	uint32_t turn;
};

struct governed {
	struct governed *chain;
	struct space *space;
	uint64_t cluster;
	struct kmesh_http_cluster rules;
	struct roster *roster;
	struct member *members; /* as many as the roster has, in its order */
	uint32_t connections, pending, requests;
	uint32_t ejected; /* members */
	uint32_t known;	  /* members whose ejections are remembered */
	uint32_t users;	  /* pools and exchanges */
	uint64_t used;	  /* when it was asked for */
	uint64_t held;	  /* when the rules were the maps' */
	uint64_t interval_began;
	/* sets.c */
	uint64_t *weights; /* sums.h: of healthy members */
	uint32_t *healthy; /* how many, by group */
	bool stale;	   /* the sets are made anew */
	struct set *sets;
	uint32_t set_count;
};

/* govern.c: NULL: the gate does not govern this cluster. */
struct governed *governed_of(struct space *space, uint64_t cluster);
struct member *governed_member(struct governed *governed, const __be32 *address, __be16 port);
void governed_forget(struct space *space); /* it has gone */
void governed_tick(void);
void governed_each_past(void (*call)(const struct governed *governed, const struct member *member));
/* What a gate before this one knew; false: there is no such endpoint. */
bool governed_adopt(struct space *space, uint64_t cluster, const __be32 *address, __be16 port,
		    const struct member_past *past);
size_t governed_tell(char *text, size_t size); /* who is ejected: words, as many as fit */
uint32_t governed_count(uint32_t *ejected, uint32_t *pending); /* of all clusters together */

/* sets.c */
void sets_prepare(struct governed *governed); /* it has other members */
void sets_discard(struct governed *governed);
void sets_changed(struct governed *governed, const struct member *member); /* ejected, or back */
void sets_arrange(struct governed *governed); /* where they are stale */

/* elect.c: false: there is no endpoint to be had. */
bool elect(struct governed *governed, const struct kmesh_endpoint *avoid,
	   struct kmesh_endpoint *endpoint);
/* The endpoint that all requests with this hash go to, while it may be used. */
bool elect_alike(struct governed *governed, const uint64_t *ring, size_t size, uint64_t hash,
		 struct kmesh_endpoint *endpoint);

/* outlier.c */
void outlier_answered(struct upstream *upstream, unsigned int status);
/* No connection, or it ended before its response did. */
void outlier_failed(struct governed *governed, const __be32 *address, __be16 port);
void outlier_interval(struct governed *governed);

/* breaker.c: the exchange has a connection, waits for one, or is `overloaded`. */
void breaker_seek(struct exchange *exchange, struct pool *pool);
bool breaker_attach(struct exchange *exchange); /* to its connection; false: it is overloaded */
void breaker_leave(struct exchange *exchange);	/* it counts no more */
void breaker_failed(const struct exchange *exchange); /* no fault of the request's own */
void breaker_stir(struct pool *pool);		      /* who waits there may go on */
void breaker_fail_waiting(struct pool *pool);
void breakers_settle(void);

#endif
