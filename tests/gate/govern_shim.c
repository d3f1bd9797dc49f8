// SPDX-License-Identifier: GPL-2.0-only
/* One governed cluster without sockets, in maps and at a time that the test says. */
#include "../../runtime/gate/govern.h"
#include "../../runtime/gate/maps.h"
#include "../../runtime/gate/stat.h"
#include "../../runtime/gate/sums.h"
#include <kmesh/gate.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLUSTER 1

uint64_t loop_now;
bool handing_over;
static struct space spaces_here[2];
static struct governed *governed; /* the first space's */
static struct kmesh_http_cluster rules;
static struct kmesh_http_member *members;
static uint32_t in_map; /* members */
static uint32_t looked_up;
static struct watch *reader;
static uint32_t counts[KMESH_EJECTIONS];

void say(const char *format, ...)
{
}

void stat_ejection(enum kmesh_ejection which)
{
	counts[which]++;
}

void stat_ejected(uint32_t count)
{
}

uint32_t gate_random(void)
{
	return rand() ^ (uint32_t)rand() << 16;
}

void loop_add(struct watch *watch, uint32_t events)
{
	reader = watch;
}

void loop_remove(struct watch *watch)
{
	close(watch->fd);
	watch->fd = -1;
	watch->ready = NULL;
	reader = NULL;
}

void *gate_map_lookup(const void *map, const void *key)
{
	const struct kmesh_http_member_key *member = key;

	if (map == &http_clusters)
		return &rules;
	looked_up++;
	return member->set == rules.members && member->place < in_map ? &members[member->place]
								      : NULL;
}

static uint32_t number_of(const __be32 *address, __be16 port)
{
	for (uint32_t i = 0; i < rules.member_count; i++)
		if (members[i].port == port &&
		    !memcmp(members[i].address, address, sizeof(members[i].address)))
			return i;
	return NO_MEMBER;
}

static struct member *member(uint32_t number)
{
	return governed_member(governed, members[number].address, members[number].port);
}

/* The maps have these. */
void shim_write(const struct kmesh_http_cluster *row, const struct kmesh_http_member *from)
{
	rules = *row;
	in_map = row->member_count;
	members = realloc(members, (in_map + 1) * sizeof(*members));
	memcpy(members, from, in_map * sizeof(*members));
}

/* What the gate knows of these from earlier is forgotten. */
void shim_make(const struct kmesh_http_cluster *row, const struct kmesh_http_member *from)
{
	shim_write(row, from);
	governed_forget(&spaces_here[0]);
	governed_forget(&spaces_here[1]);
	loop_now += 1000000;
	rosters_tick();
	memset(counts, 0, sizeof(counts));
	governed = governed_of(&spaces_here[0], CLUSTER);
}

void shim_hide(uint32_t count)
{
	in_map = count;
}

void shim_ask(uint32_t space)
{
	struct governed *found = governed_of(&spaces_here[space], CLUSTER);

	if (!space)
		governed = found;
}

/* Of the loop, without any request; 0: there was nothing to do. */
int shim_round(void)
{
	if (reader)
		reader->ready(reader, 1);
	return reader != NULL;
}

uint32_t shim_looked_up(void)
{
	uint32_t count = looked_up;

	looked_up = 0;
	return count;
}

void shim_answer(uint32_t index, unsigned int status)
{
	struct pool pool = {.governed = governed, .key.port = members[index].port};
	struct upstream upstream = {.pool = &pool};

	memcpy(pool.key.address, members[index].address, sizeof(members[index].address));
	outlier_answered(&upstream, status);
}

void shim_fail(uint32_t index)
{
	outlier_failed(governed, members[index].address, members[index].port);
}

/* The gate looks twice a second. */
void shim_pass(uint64_t milliseconds)
{
	for (uint64_t i = 0; i < milliseconds; i += 500) {
		loop_now += 500;
		outlier_interval(governed);
	}
}

int shim_is_ejected(uint32_t index)
{
	return member(index)->past.ejected;
}

void shim_use(uint32_t index, uint32_t requests)
{
	member(index)->active = requests;
}

int shim_knows(const struct kmesh_http_member *one)
{
	return governed_member(governed, one->address, one->port) != NULL;
}

/* So many entries of the index may have to be looked at to find an endpoint. */
uint32_t shim_longest_search(void)
{
	const struct roster *roster = governed->roster;
	uint32_t longest = 0, run = 0;

	for (uint32_t i = 0; i <= roster->index_mask; i++) {
		run = roster->index[i] ? run + 1 : 0;
		longest = run > longest ? run : longest;
	}
	return longest;
}

uint32_t shim_count(uint32_t which)
{
	return counts[which];
}

/* -1: there is none; -2: one that the maps do not have now. */
int shim_pick(void)
{
	struct kmesh_endpoint endpoint;
	uint32_t found;

	if (!elect(governed, NULL, &endpoint))
		return -1;
	found = number_of(endpoint.address, endpoint.port);
	return found == NO_MEMBER ? -2 : found;
}

/* How likely it is to be chosen, in percent. */
double shim_share(uint32_t index)
{
	uint32_t number = member(index) - governed->members;
	double found = 0;

	if (governed->stale)
		shim_pick();
	for (uint32_t i = 0; i < governed->set_count; i++) {
		const struct set *set = &governed->sets[i];

		if (number >= set->first && number - set->first < set->count && set->total)
			found += set->share *
				 (sums_before(set->weights, number + 1) -
				  sums_before(set->weights, number)) /
				 set->total;
	}
	return found;
}
