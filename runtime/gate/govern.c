// SPDX-License-Identifier: GPL-2.0-only
/* Governed clusters, by namespace: what is known of each, and its rules as the maps have them. */
#include "govern.h"
#include "maps.h"
#include "roster.h"
#include "stat.h"
#include <arpa/inet.h>
#include <inttypes.h>
#include <kmesh/gate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEW	     1024
#define ATTEMPTS     4 /* to read rules that are being replaced */
#define KEPT_SECONDS 60
#define OLD_MS	     500 /* rules that have been replaced hold no longer */
#define WORD	     128 /* no endpoint takes more to tell */

static struct governed *few[FEW], **buckets = few;
static uint32_t bucket_count = FEW, count_of_all;

static struct governed **bucket_of(const struct space *space, uint64_t cluster)
{
	uint64_t hash = (cluster ^ space->cookie * 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;

	return &buckets[(hash ^ hash >> 32) & (bucket_count - 1)];
}

/* Namespaces and clusters may be many: a bucket never has more than about one. */
static void make_room(void)
{
	struct governed **before = buckets, *one;
	uint32_t count = bucket_count;

	if (count_of_all++ < count)
		return;
	buckets = calloc(count * 2ull, sizeof(*buckets));
	if (!buckets)
		abort();
	bucket_count = count * 2;
	for (uint32_t i = 0; i < count; i++) {
		while ((one = before[i])) {
			struct governed **bucket = bucket_of(one->space, one->cluster);

			before[i] = one->chain;
			one->chain = *bucket;
			*bucket = one;
		}
	}
	if (before != few)
		free(before);
}

struct member *governed_member(struct governed *governed, const __be32 *address, __be16 port)
{
	uint32_t found =
		governed->roster ? roster_find(governed->roster, address, port) : NO_MEMBER;

	return found == NO_MEMBER ? NULL : &governed->members[found];
}

static struct member *make_members(const struct roster *roster)
{
	struct member *members = calloc(roster->count + 1ull, sizeof(*members));

	if (!members)
		abort();
	for (uint32_t i = 0; i < roster->group_count; i++) {
		const struct group *group = &roster->groups[i];

		for (uint32_t j = group->first; j < group->first + group->count; j++) {
			members[j].is = &roster->members[j];
			members[j].group = i;
		}
	}
	return members;
}

static bool has_past(const struct member *member)
{
	static const struct member_past nothing;

	return memcmp(&member->past, &nothing, sizeof(nothing));
}

/* What an endpoint that stays has done is not forgotten. */
static void take_roster(struct governed *governed, struct roster *roster)
{
	struct roster *old = governed->roster;
	struct member *before = governed->members;

	governed->roster = roster;
	governed->members = make_members(roster);
	governed->ejected = governed->known = 0;
	roster->users++;
	for (uint32_t i = 0; old && i < old->count; i++) {
		struct member *member;

		if (!before[i].active && !has_past(&before[i]))
			continue;
		member = governed_member(governed, before[i].is->address, before[i].is->port);
		if (!member)
			continue;
		member->active = before[i].active;
		member->past = before[i].past;
		governed->ejected += member->past.ejected;
		governed->known += !!member->past.times;
	}
	free(before);
	if (old)
		old->users--;
	sets_prepare(governed);
}

static void take(struct governed *governed, struct roster *roster,
		 const struct kmesh_http_cluster *rules)
{
	governed->rules = *rules;
	governed->stale = true;
	if (roster != governed->roster)
		take_roster(governed, roster);
}

/* The rules that hold now; false: there are none. */
static bool read_rules(uint64_t cluster, struct kmesh_http_cluster *rules)
{
	const struct kmesh_http_cluster_key key = {.cluster = cluster};
	const struct kmesh_http_cluster *found = gate_map_lookup(&http_clusters, &key);

	if (found)
		*rules = *found;
	return found && found->members;
}

static struct governed *find(struct space *space, uint64_t cluster)
{
	struct governed **bucket = bucket_of(space, cluster), *found;

	for (found = *bucket; found; found = found->chain)
		if (found->space == space && found->cluster == cluster)
			return found;
	make_room();
	bucket = bucket_of(space, cluster);
	found = calloc(1, sizeof(*found));
	if (!found)
		abort();
	found->space = space;
	found->cluster = cluster;
	found->interval_began = loop_now;
	found->chain = *bucket;
	*bucket = found;
	return found;
}

struct governed *governed_of(struct space *space, uint64_t cluster)
{
	struct kmesh_http_cluster rules;
	struct governed *governed;

	if (!read_rules(cluster, &rules))
		return NULL;
	governed = find(space, cluster);
	governed->used = loop_now;
	for (int i = 0; i < ATTEMPTS && memcmp(&rules, &governed->rules, sizeof(rules)); i++) {
		bool wait = !governed->roster || loop_now - governed->held > OLD_MS;
		struct roster *roster = roster_of(rules.members, rules.member_count, wait);

		if (roster && !roster_is_whole(roster))
			return governed; /* as it was, until all is read */
		if (roster)
			take(governed, roster, &rules);
		else if (!read_rules(cluster, &rules))
			return governed; /* what was known is still better than nothing */
	}
	governed->held = loop_now;
	return governed;
}

static void discard(struct governed **at)
{
	struct governed *governed = *at;

	*at = governed->chain;
	count_of_all--;
	if (governed->roster)
		governed->roster->users--;
	sets_discard(governed);
	free(governed->members);
	free(governed);
}

void governed_forget(struct space *space)
{
	for (uint32_t i = 0; i < bucket_count; i++) {
		struct governed **at = &buckets[i];

		while (*at) {
			if ((*at)->space == space)
				discard(at);
			else
				at = &(*at)->chain;
		}
	}
}

/* Nobody uses it, and nothing is remembered of its endpoints. */
static bool is_over(const struct governed *governed)
{
	return !governed->users && !governed->known &&
	       loop_now - governed->used >= KEPT_SECONDS * 1000;
}

void governed_tick(void)
{
	uint32_t ejected = 0;

	for (uint32_t i = 0; i < bucket_count; i++) {
		struct governed **at = &buckets[i];

		while (*at) {
			outlier_interval(*at);
			ejected += (*at)->ejected;
			if (is_over(*at))
				discard(at);
			else
				at = &(*at)->chain;
		}
	}
	rosters_tick();
	if (!handing_over)
		stat_ejected(ejected);
}

void governed_each_past(void (*call)(const struct governed *governed, const struct member *member))
{
	for (uint32_t i = 0; i < bucket_count; i++)
		for (const struct governed *one = buckets[i]; one; one = one->chain)
			for (uint32_t j = 0; j < one->rules.member_count; j++)
				if (has_past(&one->members[j]))
					call(one, &one->members[j]);
}

bool governed_adopt(struct space *space, uint64_t cluster, const __be32 *address, __be16 port,
		    const struct member_past *past)
{
	struct governed *governed = governed_of(space, cluster);
	struct member *member = governed ? governed_member(governed, address, port) : NULL;
	bool changed;

	if (!member)
		return false;
	changed = member->past.ejected != past->ejected;
	governed->ejected += past->ejected - member->past.ejected;
	governed->known += !!past->times - !!member->past.times;
	member->past = *past;
	if (changed)
		sets_changed(governed, member);
	return true;
}

uint32_t governed_count(uint32_t *ejected, uint32_t *pending)
{
	uint32_t count = 0;

	*ejected = *pending = 0;
	for (uint32_t i = 0; i < bucket_count; i++) {
		for (struct governed *one = buckets[i]; one; one = one->chain) {
			count++;
			*ejected += one->ejected;
			*pending += one->pending;
		}
	}
	return count;
}

/* CLUSTER/[ADDRESS]:PORT/NETNS of each, with a space before; the length. */
size_t governed_tell(char *text, size_t size)
{
	char address[INET6_ADDRSTRLEN];
	size_t at = 0;

	text[0] = 0;
	for (uint32_t i = 0; i < bucket_count; i++) {
		for (const struct governed *one = buckets[i]; one; one = one->chain) {
			for (uint32_t j = 0; one->ejected && j < one->rules.member_count; j++) {
				const struct member *member = &one->members[j];

				if (!member->past.ejected || size - at < WORD)
					continue;
				inet_ntop(AF_INET6, member->is->address, address, sizeof(address));
				at += snprintf(text + at, size - at,
					       " %016" PRIx64 "/[%s]:%u/%" PRIu64, one->cluster,
					       address, ntohs(member->is->port),
					       one->space->cookie);
			}
		}
	}
	return at;
}
