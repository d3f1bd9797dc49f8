/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The endpoints of a cluster as the maps have them. Such a set never changes, so that it is read
 * once for all namespaces; a large one piece by piece, so that other work goes on meanwhile.
 */
#ifndef KMESH_GATE_ROSTER_H
#define KMESH_GATE_ROSTER_H

#include <kmesh/gate_types.h>
#include <stdbool.h>
#include <stdint.h>

#define NO_MEMBER  0xffffffff
#define PRIORITIES 128 /* Envoy allows no more */

/* Endpoints of one priority and locality, which follow each other in a roster. */
struct group {
	uint32_t first, count;
	uint32_t priority;
	uint32_t weight;      /* of the locality */
	uint32_t least, most; /* weight of an endpoint that has any */
};

struct roster {
	struct roster *chain;
	uint64_t set; /* its number in the maps */
	uint64_t used;
	uint32_t users;
	uint32_t count, read;		   /* it is whole when they are the same */
	struct kmesh_http_member *members; /* by priority and locality */
	uint32_t *index, index_mask;	   /* of members, hashed: their number and 1 */
	struct group *groups;
	uint32_t group_count;
	uint64_t *weights; /* sums.h */
};

/*
 * It stays while `users` are more than 0, and for a moment without. `wait`: it is whole, however
 * long that takes. NULL: the maps do not have it, or not any more.
 */
struct roster *roster_of(uint64_t set, uint32_t count, bool wait);
/* The number of a member; NO_MEMBER: it is none. */
uint32_t roster_find(const struct roster *roster, const __be32 *address, __be16 port);
void rosters_tick(void);

static inline bool roster_is_whole(const struct roster *roster)
{
	return roster->groups;
}

static inline uint32_t roster_priority(const struct kmesh_http_member *member)
{
	return member->priority < PRIORITIES ? member->priority : PRIORITIES - 1;
}

#endif
