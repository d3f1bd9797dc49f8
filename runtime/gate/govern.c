// SPDX-License-Identifier: GPL-2.0-only
/* Governed clusters, by namespace: what is known of each, and its rules as the maps have them. */
#include "govern.h"
#include "maps.h"
#include "stat.h"
#include <arpa/inet.h>
#include <inttypes.h>
#include <kmesh/gate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS	     1024
#define ATTEMPTS     4 /* to read rules that are being replaced */
#define KEPT_SECONDS 60
#define WORD	     128 /* no endpoint takes more to tell */

static struct governed *buckets[BUCKETS];

static struct governed **bucket_of(const struct space *space, uint64_t cluster)
{
	return &buckets[(cluster ^ space->cookie * 0x9e3779b97f4a7c15) % BUCKETS];
}

struct member *governed_member(struct governed *governed, const __be32 *address, __be16 port)
{
	for (uint32_t i = 0; i < governed->rules.member_count; i++) {
		struct member *member = &governed->members[i];

		if (member->is.port == port &&
		    !memcmp(member->is.address, address, sizeof(member->is.address)))
			return member;
	}
	return NULL;
}

/* What an endpoint that stays has done is not forgotten. */
static struct member *read_members(struct governed *governed,
				   const struct kmesh_http_cluster *rules)
{
	struct member *members = calloc(rules->member_count + 1, sizeof(*members));
	struct kmesh_http_member_key key = {.set = rules->members};

	if (!members)
		abort();
	for (key.place = 0; key.place < rules->member_count; key.place++) {
		const struct kmesh_http_member *found = gate_map_lookup(&http_members, &key);
		const struct member *before;

		if (!found) {
			free(members);
			return NULL;
		}
		before = governed_member(governed, found->address, found->port);
		if (before)
			members[key.place] = *before;
		members[key.place].is = *found;
	}
	return members;
}

static void take_members(struct governed *governed, struct member *members,
			 const struct kmesh_http_cluster *rules)
{
	free(governed->members);
	governed->members = members;
	governed->rules = *rules;
	governed->ejected = 0;
	for (uint32_t i = 0; i < rules->member_count; i++)
		governed->ejected += members[i].past.ejected;
	governed->stale = true;
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
		struct member *members = read_members(governed, &rules);

		if (members)
			take_members(governed, members, &rules);
		else if (!read_rules(cluster, &rules))
			break; /* what was known is still better than nothing */
	}
	return governed;
}

static void discard(struct governed **at)
{
	struct governed *governed = *at;

	*at = governed->chain;
	free(governed->members);
	free(governed->sets);
	free(governed->order);
	free(governed);
}

void governed_forget(struct space *space)
{
	for (int i = 0; i < BUCKETS; i++) {
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
	if (governed->users || loop_now - governed->used < KEPT_SECONDS * 1000)
		return false;
	for (uint32_t i = 0; i < governed->rules.member_count; i++)
		if (governed->members[i].past.times)
			return false;
	return true;
}

void governed_tick(void)
{
	uint32_t ejected = 0;

	for (int i = 0; i < BUCKETS; i++) {
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
	if (!handing_over)
		stat_ejected(ejected);
}

void governed_each_past(void (*call)(const struct governed *governed, const struct member *member))
{
	static const struct member_past nothing;

	for (int i = 0; i < BUCKETS; i++)
		for (const struct governed *one = buckets[i]; one; one = one->chain)
			for (uint32_t j = 0; j < one->rules.member_count; j++)
				if (memcmp(&one->members[j].past, &nothing, sizeof(nothing)))
					call(one, &one->members[j]);
}

bool governed_adopt(struct space *space, uint64_t cluster, const __be32 *address, __be16 port,
		    const struct member_past *past)
{
	struct governed *governed = governed_of(space, cluster);
	struct member *member = governed ? governed_member(governed, address, port) : NULL;

	if (!member)
		return false;
	governed->ejected += past->ejected;
	governed->ejected -= member->past.ejected;
	governed->stale = true;
	member->past = *past;
	return true;
}

uint32_t governed_count(uint32_t *ejected, uint32_t *pending)
{
	uint32_t count = 0;

	*ejected = *pending = 0;
	for (int i = 0; i < BUCKETS; i++) {
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
	for (int i = 0; i < BUCKETS; i++) {
		for (const struct governed *one = buckets[i]; one; one = one->chain) {
			for (uint32_t j = 0; one->ejected && j < one->rules.member_count; j++) {
				const struct member *member = &one->members[j];

				if (!member->past.ejected || size - at < WORD)
					continue;
				inet_ntop(AF_INET6, member->is.address, address, sizeof(address));
				at += snprintf(text + at, size - at,
					       " %016" PRIx64 "/[%s]:%u/%" PRIu64, one->cluster,
					       address, ntohs(member->is.port), one->space->cookie);
			}
		}
	}
	return at;
}
