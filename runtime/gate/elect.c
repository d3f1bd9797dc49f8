// SPDX-License-Identifier: GPL-2.0-only
/* Choosing an endpoint of a governed cluster: first a set by its share, then one of it. */
#include "answers.h"
#include "govern.h"
#include "sums.h"
#include <string.h>

#define PASSES 5  /* to find another endpoint than the one that has just failed */
#define DRAWS  4  /* by weight, to find one that is not busy */
#define HASHES 64 /* tried before any endpoint is good enough */

uint32_t gate_random(void);

/* The shares of all sets are 100 together. */
static struct set *set_at(struct governed *governed, uint32_t number)
{
	double at = number * 100.0 / 4294967296.0;
	uint32_t low = 0, high = governed->set_count;

	if (!high)
		return NULL;
	while (low + 1 < high) {
		uint32_t middle = low + (high - low) / 2;

		if (at < governed->sets[middle - 1].until)
			high = middle;
		else
			low = middle;
	}
	return &governed->sets[low];
}

/* Of the weights of a set's endpoints, laid end to end. */
static struct member *member_at(const struct governed *governed, const struct set *set, uint64_t at)
{
	return &governed->members[sums_find(set->weights, governed->roster->count,
					    set->before + at)];
}

static struct member *draw(const struct governed *governed, const struct set *set)
{
	return member_at(governed, set, (unsigned __int128)gate_random() * set->total >> 32);
}

/* As the kernel does it where weights differ (kmesh/less_busy.h). */
static struct member *draw_by_load(const struct governed *governed, const struct set *set)
{
	struct member *drawn = draw(governed, set), *best = drawn;

	for (int i = 1; i < DRAWS; i++) {
		if (!((uint64_t)gate_random() * (drawn->active + 1ull) >> 32))
			return drawn;
		drawn = draw(governed, set);
		best = drawn->active < best->active ? drawn : best;
	}
	return best;
}

static struct member *choose_from(struct governed *governed, struct set *set)
{
	struct member *best, *other;

	if (governed->rules.flags & KMESH_CLUSTER_IN_TURN && set->each)
		return member_at(governed, set, set->turn++ % (set->total / set->each) * set->each);
	if (governed->rules.flags & KMESH_CLUSTER_LEAST && !set->each)
		return draw_by_load(governed, set);
	best = draw(governed, set);
	if (!(governed->rules.flags & KMESH_CLUSTER_LEAST))
		return best;
	for (uint32_t i = 1; i < governed->rules.choices; i++) {
		other = draw(governed, set);
		best = other->active < best->active ? other : best;
	}
	return best;
}

static void take(const struct member *member, struct kmesh_endpoint *endpoint)
{
	*endpoint = (struct kmesh_endpoint){.port = member->is->port, .weight = member->is->weight};
	memcpy(endpoint->address, member->is->address, sizeof(endpoint->address));
}

bool elect(struct governed *governed, const struct kmesh_endpoint *avoid,
	   struct kmesh_endpoint *endpoint)
{
	struct kmesh_endpoint failed = {};

	if (avoid)
		failed = *avoid;
	if (governed->stale)
		sets_arrange(governed);
	for (int i = 0; i < PASSES; i++) {
		struct set *set = set_at(governed, gate_random());

		if (!set || !set->total)
			return false;
		take(choose_from(governed, set), endpoint);
		if (!avoid || endpoint->port != failed.port ||
		    memcmp(endpoint->address, failed.address, sizeof(failed.address)))
			break;
	}
	return true;
}

/* Whether it may be chosen from a set. */
static bool is_of(const struct governed *governed, const struct set *set,
		  const struct member *member)
{
	uint32_t number = member - governed->members;

	return number >= set->first && number - set->first < set->count && member->is->weight &&
	       (set->weights == governed->roster->weights || member_is_healthy(member));
}

bool elect_alike(struct governed *governed, const uint64_t *ring, size_t size, uint64_t hash,
		 struct kmesh_endpoint *endpoint)
{
	const struct set *set;
	uint64_t next = hash;

	if (governed->stale)
		sets_arrange(governed);
	set = set_at(governed, (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9 >> 32);
	if (!set || !set->total)
		return false;
	for (int i = 0; i < HASHES; i++) {
		const struct member *member;

		if (!hash_choose(ring, size, next, endpoint))
			break;
		member = governed_member(governed, endpoint->address, endpoint->port);
		if (member && is_of(governed, set, member))
			return true;
		next = (next ^ next >> 31) * 0x94d049bb133111eb + i;
	}
	take(member_at(governed, set, hash % set->total), endpoint);
	return true;
}
