// SPDX-License-Identifier: GPL-2.0-only
/* One governed cluster without sockets, at a time that the test says. */
#include "../../runtime/gate/govern.h"
#include "../../runtime/gate/stat.h"
#include <stdlib.h>
#include <string.h>

uint64_t loop_now;
static struct governed governed;
static uint32_t counts[KMESH_EJECTIONS];

void say(const char *format, ...)
{
}

void stat_ejection(enum kmesh_ejection which)
{
	counts[which]++;
}

uint32_t gate_random(void)
{
	return rand() ^ (uint32_t)rand() << 16;
}

struct member *governed_member(struct governed *of, const __be32 *address, __be16 port)
{
	for (uint32_t i = 0; i < of->rules.member_count; i++)
		if (of->members[i].is.port == port &&
		    !memcmp(of->members[i].is.address, address, sizeof(of->members[i].is.address)))
			return &of->members[i];
	return NULL;
}

void shim_make(const struct kmesh_http_cluster *rules, const struct kmesh_http_member *members)
{
	free(governed.members);
	free(governed.sets);
	free(governed.order);
	memset(counts, 0, sizeof(counts));
	loop_now = 1000000;
	governed = (struct governed){.rules = *rules, .stale = true, .interval_began = loop_now};
	governed.members = calloc(rules->member_count + 1, sizeof(struct member));
	for (uint32_t i = 0; i < rules->member_count; i++)
		governed.members[i].is = members[i];
}

void shim_answer(uint32_t index, unsigned int status)
{
	const struct kmesh_http_member *is = &governed.members[index].is;
	struct pool pool = {.governed = &governed, .key.port = is->port};
	struct upstream upstream = {.pool = &pool};

	memcpy(pool.key.address, is->address, sizeof(is->address));
	outlier_answered(&upstream, status);
}

void shim_fail(uint32_t index)
{
	outlier_failed(&governed, governed.members[index].is.address,
		       governed.members[index].is.port);
}

/* The gate looks twice a second. */
void shim_pass(uint64_t milliseconds)
{
	for (uint64_t i = 0; i < milliseconds; i += 500) {
		loop_now += 500;
		outlier_interval(&governed);
	}
}

int shim_is_ejected(uint32_t index)
{
	return governed.members[index].past.ejected;
}

uint32_t shim_count(uint32_t which)
{
	return counts[which];
}

int shim_pick(void)
{
	struct kmesh_endpoint endpoint;

	if (!elect(&governed, NULL, &endpoint))
		return -1;
	return governed_member(&governed, endpoint.address, endpoint.port) - governed.members;
}

/* How likely it is to be chosen, in percent. */
double shim_share(uint32_t index)
{
	double found = 0;

	if (governed.stale)
		shim_pick();
	for (uint32_t i = 0; i < governed.set_count; i++) {
		const struct set *set = &governed.sets[i];

		for (uint32_t j = 0; j < set->count; j++)
			if (governed.order[set->first + j] == index)
				found +=
					set->share * governed.members[index].is.weight / set->total;
	}
	return found;
}
