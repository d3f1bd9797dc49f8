// SPDX-License-Identifier: GPL-2.0-only
/*
 * Choosing an endpoint of a governed cluster. Endpoints that may be used now are put into sets, one
 * for each priority that gets requests, or for each of its localities; a set is drawn by its share,
 * then an endpoint of it. (Envoy: source/extensions/load_balancing_policies/common)
 */
#include "answers.h"
#include "govern.h"
#include <stdlib.h>
#include <string.h>

#define PRIORITIES 128 /* Envoy allows no more */
#define PASSES	   5   /* to find another endpoint than the one that has just failed */
#define HASHES	   64  /* tried before any endpoint is good enough */

uint32_t gate_random(void);

struct level {
	uint32_t hosts, healthy;
	uint32_t part; /* its health in percent, or where all panic its endpoints */
	uint32_t load; /* percent of requests */
	bool panics;   /* health does not count */
};

static bool is_healthy(const struct member *member)
{
	return member->is.flags & KMESH_MEMBER_HEALTHY && !member->past.ejected;
}

static uint32_t priority_of(const struct member *member)
{
	return member->is.priority < PRIORITIES ? member->is.priority : PRIORITIES - 1;
}

static uint32_t least(uint32_t one, uint32_t other)
{
	return one < other ? one : other;
}

/* Returns how many levels there are. */
static uint32_t count_hosts(const struct governed *governed, struct level *levels)
{
	uint32_t count = 1;

	for (uint32_t i = 0; i < governed->rules.member_count; i++) {
		const struct member *member = &governed->members[i];
		uint32_t priority = priority_of(member);

		levels[priority].hosts++;
		levels[priority].healthy += is_healthy(member);
		if (priority >= count)
			count = priority + 1;
	}
	return count;
}

/* To each its part of the whole, while there is any left; the first takes what rounding leaves. */
static void share_by_parts(struct level *levels, uint32_t count, uint32_t whole)
{
	uint32_t left = 100, first = count;

	for (uint32_t i = 0; i < count; i++) {
		if (first == count && levels[i].part)
			first = i;
		levels[i].load = least(left, 100ull * levels[i].part / whole);
		left -= levels[i].load;
	}
	if (first < count)
		levels[first].load += left;
}

static void share(struct level *levels, uint32_t count, const struct kmesh_http_cluster *rules)
{
	uint32_t available = 0, whole;
	bool all_panic = true;

	for (uint32_t i = 0; i < count; i++) {
		struct level *level = &levels[i];

		if (level->hosts)
			level->part = least(100, (uint64_t)rules->overprovisioning *
							 level->healthy / level->hosts);
		available = least(100, available + level->part);
	}
	if (!available && !rules->panic_percent) {
		levels[0].load = 100; /* to nobody */
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct level *level = &levels[i];

		level->panics =
			available < 100 &&
			100ull * level->healthy < (uint64_t)rules->panic_percent * level->hosts;
		level->panics |= available < 100 && !level->hosts && rules->panic_percent;
		all_panic &= level->panics;
	}
	for (uint32_t i = 0; all_panic && i < count; i++)
		levels[i].part = levels[i].hosts;
	whole = all_panic ? rules->member_count : available;
	if (whole)
		share_by_parts(levels, count, whole);
}

/* A set of a level's endpoints; of one locality, or with NULL of all. */
static void add_set(struct governed *governed, uint32_t priority, const uint32_t *locality,
		    bool panics, double part)
{
	struct set *set = &governed->sets[governed->set_count];
	uint32_t first = governed->set_count ? set[-1].first + set[-1].count : 0;

	*set = (struct set){.share = part, .first = first, .alike = true};
	for (uint32_t i = 0; i < governed->rules.member_count; i++) {
		struct member *member = &governed->members[i];

		if (priority_of(member) != priority || !(panics || is_healthy(member)) ||
		    !member->is.weight || (locality && member->is.locality != *locality))
			continue;
		member->set = governed->set_count;
		governed->order[first + set->count++] = i;
		set->total += member->is.weight;
		set->alike &=
			member->is.weight == governed->members[governed->order[first]].is.weight;
	}
	set->turn = set->count ? gate_random() % set->count : 0;
	governed->set_count++;
}

/* By its own weight, and less when it lacks endpoints. */
static double weight_of(const struct governed *governed, uint32_t priority, uint32_t locality)
{
	uint32_t hosts = 0, healthy = 0, weight = 0;
	double able;

	for (uint32_t i = 0; i < governed->rules.member_count; i++) {
		const struct member *member = &governed->members[i];

		if (priority_of(member) != priority || member->is.locality != locality)
			continue;
		hosts++;
		healthy += is_healthy(member);
		weight = member->is.locality_weight;
	}
	able = hosts ? governed->rules.overprovisioning / 100.0 * healthy / hosts : 0;
	return weight * (able < 1 ? able : 1);
}

static uint32_t localities_of(const struct governed *governed)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < governed->rules.member_count; i++)
		if (governed->members[i].is.locality >= count)
			count = governed->members[i].is.locality + 1;
	return least(count, governed->rules.member_count); /* they are numbered from 0 on */
}

static bool add_localities(struct governed *governed, uint32_t priority, double part)
{
	uint32_t count = localities_of(governed);
	double sum = 0;

	for (uint32_t i = 0; i < count; i++)
		sum += weight_of(governed, priority, i);
	for (uint32_t i = 0; i < count; i++) {
		double weight = weight_of(governed, priority, i);

		if (weight > 0)
			add_set(governed, priority, &i, false, part * weight / sum);
	}
	return sum > 0;
}

static void arrange(struct governed *governed)
{
	struct level levels[PRIORITIES] = {};
	uint32_t count = count_hosts(governed, levels);
	bool weighted = governed->rules.flags & KMESH_CLUSTER_LOCALITIES;

	free(governed->sets);
	free(governed->order);
	governed->sets = calloc(count + governed->rules.member_count, sizeof(*governed->sets));
	governed->order = calloc(governed->rules.member_count + 1, sizeof(*governed->order));
	if (!governed->sets || !governed->order)
		abort();
	governed->set_count = 0;
	governed->stale = false;
	for (uint32_t i = 0; i < governed->rules.member_count; i++)
		governed->members[i].set = NO_SET;
	share(levels, count, &governed->rules);
	for (uint32_t i = 0; i < count; i++) {
		const struct level *level = &levels[i];

		if (!level->load ||
		    (weighted && !level->panics && add_localities(governed, i, level->load)))
			continue;
		add_set(governed, i, NULL, level->panics, level->load);
	}
}

/* The shares of all sets are 100 together. */
static struct set *set_at(struct governed *governed, uint32_t number)
{
	double at = number * 100.0 / 4294967296.0;

	for (uint32_t i = 0; i + 1 < governed->set_count; i++) {
		if (at < governed->sets[i].share)
			return &governed->sets[i];
		at -= governed->sets[i].share;
	}
	return governed->set_count ? &governed->sets[governed->set_count - 1] : NULL;
}

static struct member *draw(const struct governed *governed, const struct set *set)
{
	uint64_t left = (uint64_t)((unsigned __int128)gate_random() * set->total >> 32);
	uint32_t i = 0;

	if (set->alike)
		return &governed->members[governed->order[set->first + left % set->count]];
	for (; i + 1 < set->count; i++) {
		uint32_t weight = governed->members[governed->order[set->first + i]].is.weight;

		if (left < weight)
			break;
		left -= weight;
	}
	return &governed->members[governed->order[set->first + i]];
}

static struct member *choose_from(struct governed *governed, struct set *set)
{
	struct member *best, *other;

	if (governed->rules.flags & KMESH_CLUSTER_IN_TURN && set->alike)
		return &governed->members[governed->order[set->first + set->turn++ % set->count]];
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
	*endpoint = (struct kmesh_endpoint){.port = member->is.port, .weight = member->is.weight};
	memcpy(endpoint->address, member->is.address, sizeof(endpoint->address));
}

bool elect(struct governed *governed, const struct kmesh_endpoint *avoid,
	   struct kmesh_endpoint *endpoint)
{
	struct kmesh_endpoint failed = {};

	if (avoid)
		failed = *avoid;
	if (governed->stale)
		arrange(governed);
	for (int i = 0; i < PASSES; i++) {
		struct set *set = set_at(governed, gate_random());

		if (!set || !set->count)
			return false;
		take(choose_from(governed, set), endpoint);
		if (!avoid || endpoint->port != failed.port ||
		    memcmp(endpoint->address, failed.address, sizeof(failed.address)))
			break;
	}
	return true;
}

bool elect_alike(struct governed *governed, const uint64_t *ring, size_t size, uint64_t hash,
		 struct kmesh_endpoint *endpoint)
{
	const struct set *set;
	uint64_t next = hash;

	if (governed->stale)
		arrange(governed);
	set = set_at(governed, (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9 >> 32);
	if (!set || !set->count)
		return false;
	for (int i = 0; i < HASHES; i++) {
		const struct member *member;

		if (!hash_choose(ring, size, next, endpoint))
			break;
		member = governed_member(governed, endpoint->address, endpoint->port);
		if (member && member->set == set - governed->sets)
			return true;
		next = (next ^ next >> 31) * 0x94d049bb133111eb + i;
	}
	take(&governed->members[governed->order[set->first + hash % set->count]], endpoint);
	return true;
}
