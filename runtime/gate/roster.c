// SPDX-License-Identifier: GPL-2.0-only
/* Reading the endpoints of clusters: by their number, which no others ever get. */
#include "roster.h"
#include "gate.h"
#include "maps.h"
#include "sums.h"
#include <kmesh/gate.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define PIECE	1024 /* members that are read before anything else is done */
#define BUCKETS 1024
#define KEPT_MS 2000

static struct roster *buckets[BUCKETS];
static uint32_t unread;

static struct watch reader = {.fd = -1};

static void *have(size_t count, size_t size)
{
	void *made = calloc(count, size);

	if (!made)
		abort();
	return made;
}

/* Every bit of it counts: addresses differ in a few. (The last steps of MurmurHash3) */
static uint32_t place_of(const struct roster *roster, const __be32 *address, __be16 port)
{
	uint64_t half[2], hash;

	memcpy(half, address, sizeof(half));
	hash = half[0] * 0x9e3779b97f4a7c15 ^ half[1] ^ port;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
	return (hash ^ hash >> 33) & roster->index_mask;
}

static bool is_at(const struct kmesh_http_member *member, const __be32 *address, __be16 port)
{
	return member->port == port && !memcmp(member->address, address, sizeof(member->address));
}

/* Where its number is, or is to be. */
static uint32_t *entry_of(const struct roster *roster, const __be32 *address, __be16 port)
{
	uint32_t place = place_of(roster, address, port);

	while (roster->index[place] &&
	       !is_at(&roster->members[roster->index[place] - 1], address, port))
		place = (place + 1) & roster->index_mask;
	return &roster->index[place];
}

uint32_t roster_find(const struct roster *roster, const __be32 *address, __be16 port)
{
	return *entry_of(roster, address, port) - 1; /* of 0 it is NO_MEMBER */
}

static void make_index(struct roster *roster)
{
	uint32_t size = 1;

	while (size < roster->count * 2 + 1)
		size *= 2;
	roster->index = have(size, sizeof(*roster->index));
	roster->index_mask = size - 1;
	for (uint32_t i = 0; i < roster->count; i++) {
		const struct kmesh_http_member *member = &roster->members[i];
		uint32_t *entry = entry_of(roster, member->address, member->port);

		if (!*entry)
			*entry = i + 1;
	}
}

static int64_t compare(const struct kmesh_http_member *one, const struct kmesh_http_member *other)
{
	int64_t priorities = (int64_t)roster_priority(one) - roster_priority(other);

	return priorities ? priorities : (int64_t)one->locality - other->locality;
}

static int compare_members(const void *one, const void *other)
{
	int64_t order = compare(one, other);

	/* Among equals by their addresses, as they came. */
	return order ? (order > 0) - (order < 0)
		     : memcmp(one, other, sizeof(struct kmesh_http_member));
}

static void sort(struct roster *roster)
{
	for (uint32_t i = 1; i < roster->count; i++) {
		if (compare(&roster->members[i - 1], &roster->members[i]) <= 0)
			continue;
		qsort(roster->members, roster->count, sizeof(*roster->members), compare_members);
		return;
	}
}

static void make_groups(struct roster *roster)
{
	struct group *group = NULL;

	roster->groups = have(roster->count + 1, sizeof(*roster->groups));
	for (uint32_t i = 0; i < roster->count; i++) {
		const struct kmesh_http_member *member = &roster->members[i];

		if (!i || compare(member - 1, member)) {
			group = &roster->groups[roster->group_count++];
			*group = (struct group){.first = i,
						.priority = roster_priority(member),
						.least = UINT32_MAX};
		}
		group->count++;
		group->weight = member->locality_weight;
		if (member->weight && member->weight < group->least)
			group->least = member->weight;
		if (member->weight > group->most)
			group->most = member->weight;
	}
	roster->groups = realloc(roster->groups, (roster->group_count + 1) * sizeof(*group));
	if (!roster->groups)
		abort();
}

static void complete(struct roster *roster)
{
	sort(roster);
	make_index(roster);
	roster->weights = have(roster->count + 1ull, sizeof(*roster->weights));
	for (uint32_t i = 0; i < roster->count; i++)
		roster->weights[i + 1] = roster->members[i].weight;
	sums_build(roster->weights, roster->count);
	make_groups(roster);
	unread--;
}

static void discard(struct roster **at)
{
	struct roster *roster = *at;

	*at = roster->chain;
	unread -= !roster_is_whole(roster);
	free(roster->members);
	free(roster->index);
	free(roster->groups);
	free(roster->weights);
	free(roster);
}

/* So many more; false: there is one that the map does not have. */
static bool read_more(struct roster *roster, uint32_t count)
{
	struct kmesh_http_member_key key = {.set = roster->set};

	for (; count && roster->read < roster->count; count--) {
		const struct kmesh_http_member *found;

		key.place = roster->read;
		found = gate_map_lookup(&http_members, &key);
		if (!found)
			return false;
		roster->members[roster->read++] = *found;
	}
	if (roster->read == roster->count)
		complete(roster);
	return true;
}

/* One piece of one roster: then whatever else there is has its turn. */
static void read_on(struct watch *watch, uint32_t events)
{
	static uint32_t next;

	(void)events;
	for (uint32_t i = 0; unread && i < BUCKETS; i++, next++) {
		struct roster **at = &buckets[next % BUCKETS];

		while (*at && roster_is_whole(*at))
			at = &(*at)->chain;
		if (!*at)
			continue;
		if (!read_more(*at, PIECE))
			discard(at);
		break;
	}
	if (!unread)
		loop_remove(watch);
}

static void read_later(void)
{
	if (reader.fd >= 0)
		return;
	reader.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK); /* it is always ready */
	reader.ready = read_on;
	if (reader.fd >= 0)
		loop_add(&reader, EPOLLIN);
}

struct roster *roster_of(uint64_t set, uint32_t count, bool wait)
{
	struct roster **bucket = &buckets[set % BUCKETS], **at = bucket;

	while (*at && ((*at)->set != set || (*at)->count != count))
		at = &(*at)->chain;
	if (!*at) {
		struct roster *made = have(1, sizeof(*made));

		*made = (struct roster){.set = set, .count = count};
		made->members = have(count + 1ull, sizeof(*made->members));
		*at = made;
		unread++;
		if (!read_more(made, PIECE)) {
			discard(at);
			return NULL;
		}
	}
	(*at)->used = loop_now;
	if (roster_is_whole(*at))
		return *at;
	if (!wait)
		read_later();
	if ((wait || reader.fd < 0) && !read_more(*at, count)) {
		discard(at);
		return NULL;
	}
	return *at;
}

void rosters_tick(void)
{
	for (int i = 0; i < BUCKETS; i++) {
		struct roster **at = &buckets[i];

		while (*at)
			if (!(*at)->users && loop_now - (*at)->used >= KEPT_MS)
				discard(at);
			else
				at = &(*at)->chain;
	}
}
