// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which endpoints of a governed cluster may be used now, and for what share of the requests: a set
 * for each priority that gets any, or for each of its localities. A change of one endpoint's health
 * takes as many steps as there are such groups, however many endpoints they have. (Envoy:
 * source/extensions/load_balancing_policies/common)
 */
#include "govern.h"
#include "sums.h"
#include <stdlib.h>

uint32_t gate_random(void);

/* A priority. */
struct level {
	uint32_t first, groups;
	uint32_t hosts, healthy;
	uint32_t part; /* its health in percent, or where all panic its endpoints */
	uint32_t load; /* percent of requests */
	bool panics;   /* health does not count */
};

static uint32_t least(uint32_t one, uint32_t other)
{
	return one < other ? one : other;
}

/* Returns how many levels there are. */
static uint32_t count_hosts(const struct governed *governed, struct level *levels)
{
	uint32_t count = 1;

	for (uint32_t i = 0; i < governed->roster->group_count; i++) {
		const struct group *group = &governed->roster->groups[i];
		struct level *level = &levels[group->priority];

		if (!level->groups++)
			level->first = i;
		level->hosts += group->count;
		level->healthy += governed->healthy[i];
		count = group->priority + 1;
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

/* Of groups that follow each other; with `panics` also of those that are not healthy. */
static void add_set(struct governed *governed, uint32_t first, uint32_t groups, bool panics,
		    double share)
{
	const struct roster *roster = governed->roster;
	struct set *set = &governed->sets[governed->set_count];
	uint32_t low = UINT32_MAX, high = 0;

	*set = (struct set){.share = share,
			    .until = governed->set_count ? set[-1].until + share : share,
			    .first = groups ? roster->groups[first].first : 0,
			    .weights = panics ? roster->weights : governed->weights};
	for (const struct group *group = &roster->groups[first]; groups; groups--, group++) {
		set->count += group->count;
		low = least(low, group->least);
		high = high < group->most ? group->most : high;
	}
	set->each = low == high ? low : 0;
	set->before = sums_before(set->weights, set->first);
	set->total = sums_before(set->weights, set->first + set->count) - set->before;
	set->turn = set->total ? gate_random() : 0;
	governed->set_count++;
}

/* By its own weight, and less when it lacks endpoints. */
static double weight_of(const struct governed *governed, uint32_t number)
{
	const struct group *group = &governed->roster->groups[number];
	double able =
		governed->rules.overprovisioning / 100.0 * governed->healthy[number] / group->count;

	return group->weight * (able < 1 ? able : 1);
}

static bool add_localities(struct governed *governed, const struct level *level)
{
	double sum = 0;

	for (uint32_t i = 0; i < level->groups; i++)
		sum += weight_of(governed, level->first + i);
	for (uint32_t i = 0; i < level->groups; i++) {
		double weight = weight_of(governed, level->first + i);

		if (weight > 0)
			add_set(governed, level->first + i, 1, false, level->load * weight / sum);
	}
	return sum > 0;
}

/* In as many steps as there are groups, and not endpoints. */
void sets_arrange(struct governed *governed)
{
	struct level levels[PRIORITIES] = {};
	uint32_t count = count_hosts(governed, levels);
	bool weighted = governed->rules.flags & KMESH_CLUSTER_LOCALITIES;

	governed->set_count = 0;
	governed->stale = false;
	share(levels, count, &governed->rules);
	for (uint32_t i = 0; i < count; i++) {
		const struct level *level = &levels[i];

		if (!level->load || (weighted && !level->panics && add_localities(governed, level)))
			continue;
		add_set(governed, level->first, level->groups, level->panics, level->load);
	}
}

void sets_discard(struct governed *governed)
{
	free(governed->weights);
	free(governed->healthy);
	free(governed->sets);
}

void sets_prepare(struct governed *governed)
{
	const struct roster *roster = governed->roster;

	sets_discard(governed);
	governed->weights = calloc(roster->count + 1ull, sizeof(*governed->weights));
	governed->healthy = calloc(roster->group_count + 1ull, sizeof(*governed->healthy));
	/* A level that has no groups may be one. */
	governed->sets = calloc(roster->group_count + 1ull, sizeof(*governed->sets));
	if (!governed->weights || !governed->healthy || !governed->sets)
		abort();
	for (uint32_t i = 0; i < roster->count; i++) {
		const struct member *member = &governed->members[i];

		if (!member_is_healthy(member))
			continue;
		governed->weights[i + 1] = member->is->weight;
		governed->healthy[member->group]++;
	}
	sums_build(governed->weights, roster->count);
	governed->stale = true;
}

void sets_changed(struct governed *governed, const struct member *member)
{
	int64_t change = member->past.ejected ? -1 : 1;

	if (!(member->is->flags & KMESH_MEMBER_HEALTHY))
		return;
	governed->healthy[member->group] += change;
	sums_add(governed->weights, governed->roster->count, member - governed->members,
		 change * member->is->weight);
	governed->stale = true;
}
