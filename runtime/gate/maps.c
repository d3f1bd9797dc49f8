// SPDX-License-Identifier: GPL-2.0-only
/* The pinned maps, by bare system calls: what the kernel and the gate tell each other. */
#include "gate.h"
#include "maps.h"
#include <kmesh/maps.h>
#include <kmesh/gate.h>
#include <kmesh/http/maps.h>
#include <kmesh/stat.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct kmesh_slot *slots_shared;
struct kmesh_upstream *upstreams_shared;
struct kmesh_pool *pools_shared;
struct kmesh_gate_settings *settings_shared;

#define UNACCEPTED_NS 120000000000ull
#define BUFFER	      512 /* no value that is looked up is longer */

struct open_map {
	const void *map; /* as the shared headers define it */
	const char *name;
	int fd;
	char value[BUFFER] __attribute__((aligned(8)));
};

static struct open_map maps[] = {
	{&clusters, "clusters", -1},
	{&slots, "slots", -1},
	{&http_ports, "http_ports", -1},
	{&http_routes, "http_routes", -1},
	{&gates, "gates", -1},
	{&gate_sessions, "gate_sessions", -1},
	{&gate_slots, "gate_slots", -1},
	{&free_slots, "free_slots", -1},
	{&gate_upstreams, "gate_upstreams", -1},
	{&pools, "pools", -1},
	{&pool_numbers, "pool_numbers", -1},
	{&idle, "idle", -1},
	{&gate_settings, "gate_settings", -1},
	{&upstream_socks, "upstream_socks", -1},
	{&upstream_ids, "upstream_ids", -1},
	{&source_tlvs, "source_tlvs", -1},
	{&http_grammars, "http_grammars", -1},
	{&http_graphs, "http_graphs", -1},
	{&http_texts, "http_texts", -1},
	{&http_buckets, "http_buckets", -1},
	{&http_rings, "http_rings", -1},
	{&http_clusters, "http_clusters", -1},
	{&http_members, "http_members", -1},
	{&route_stats, "route_stats", -1},
	{&gate_stat, "gate_stat", -1},
	{&taken_heads, "taken_heads", -1},
	{&http_clock, "http_clock", -1},
};

int gate_bpf(int command, union bpf_attr *attributes)
{
	return syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

static struct open_map *entry_of(const void *map)
{
	for (size_t i = 0; i < sizeof(maps) / sizeof(*maps); i++)
		if (maps[i].map == map)
			return &maps[i];
	abort();
}

int gate_map_fd(const void *map)
{
	return entry_of(map)->fd;
}

static int element(int command, int fd, const void *key, void *value, uint64_t flags)
{
	union bpf_attr attributes = {};

	attributes.map_fd = fd;
	attributes.key = (uint64_t)(uintptr_t)key;
	attributes.value = (uint64_t)(uintptr_t)value;
	attributes.flags = flags;
	return gate_bpf(command, &attributes);
}

static int update(const void *map, const void *key, const void *value)
{
	return element(BPF_MAP_UPDATE_ELEM, gate_map_fd(map), key, (void *)value, 0);
}

bool maps_update(const void *map, const void *key, const void *value)
{
	return !update(map, key, value);
}

static bool delete (const void *map, const void *key)
{
	return !element(BPF_MAP_DELETE_ELEM, gate_map_fd(map), key, NULL, 0);
}

void *gate_map_lookup(const void *map, const void *key)
{
	struct open_map *entry = entry_of(map);

	return element(BPF_MAP_LOOKUP_ELEM, entry->fd, key, entry->value, 0) ? NULL : entry->value;
}

static struct bpf_map_info about(const void *map)
{
	struct bpf_map_info info = {};
	union bpf_attr attributes = {};

	attributes.info.bpf_fd = gate_map_fd(map);
	attributes.info.info_len = sizeof(info);
	attributes.info.info = (uint64_t)(uintptr_t)&info;
	if (gate_bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes))
		return (struct bpf_map_info){};
	return info;
}

/* What tells these maps from those of another layout. */
uint32_t maps_identity(void)
{
	return about(&gate_slots).id;
}

void *gate_map_share(const void *map, size_t size)
{
	void *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, gate_map_fd(map), 0);

	return shared == MAP_FAILED ? NULL : shared;
}

static int open_one(const char *pins, struct open_map *entry)
{
	char path[512];
	union bpf_attr attributes = {};

	snprintf(path, sizeof(path), "%s/%s", pins, entry->name);
	attributes.pathname = (uint64_t)(uintptr_t)path;
	entry->fd = gate_bpf(BPF_OBJ_GET, &attributes);
	if (entry->fd < 0)
		say("cannot open %s: %s", path, strerror(errno));
	return entry->fd < 0 ? -1 : 0;
}

/* As many as the map was made for, which may have been by a version with fewer. */
static uint32_t pool_count;

int maps_open(const char *pins)
{
	for (size_t i = 0; i < sizeof(maps) / sizeof(*maps); i++)
		if (open_one(pins, &maps[i]))
			return -1;
	slots_shared = gate_map_share(&gate_slots, sizeof(*slots_shared) * KMESH_SLOTS);
	upstreams_shared =
		gate_map_share(&gate_upstreams, sizeof(*upstreams_shared) * KMESH_UPSTREAMS);
	pool_count = about(&pools).max_entries;
	pool_count = pool_count < KMESH_POOLS ? pool_count : KMESH_POOLS;
	pools_shared = gate_map_share(&pools, sizeof(*pools_shared) * pool_count);
	settings_shared = gate_map_share(&gate_settings, 4096);
	if (!slots_shared || !upstreams_shared || !pools_shared || !settings_shared) {
		say("cannot map the shared tables: %s", strerror(errno));
		return -1;
	}
	return 0;
}

/* The key after one, or the first. */
static bool next_key(const void *map, const void *key, void *next)
{
	union bpf_attr attributes = {};

	attributes.map_fd = gate_map_fd(map);
	attributes.key = (uint64_t)(uintptr_t)key;
	attributes.next_key = (uint64_t)(uintptr_t)next;
	return !gate_bpf(BPF_MAP_GET_NEXT_KEY, &attributes);
}

static void empty(const void *map)
{
	char key[64];

	while (next_key(map, NULL, key))
		delete (map, key);
}

void gate_map_empty(const void *map)
{
	empty(map);
}

void gate_map_delete(const void *map, const void *key)
{
	delete (map, key);
}

/* When the gate before this one has died, and its connections with it. */
void maps_reset(void)
{
	uint32_t slot;

	settings_shared->paused = 1;
	empty(&idle);
	empty(&pool_numbers);
	empty(&gate_sessions);
	empty(&gates);
	empty(&upstream_socks);
	empty(&upstream_ids);
	while (!element(BPF_MAP_LOOKUP_AND_DELETE_ELEM, gate_map_fd(&free_slots), NULL, &slot, 0))
		;
	/* `next` of a pool stays: its numbers are never given again. */
	for (uint32_t pool = 0; pool < pool_count; pool++)
		pools_shared[pool].busy = 0;
	memset(upstreams_shared, 0, sizeof(*upstreams_shared) * KMESH_UPSTREAMS);
	memset(slots_shared, 0, sizeof(*slots_shared) * KMESH_SLOTS);
	for (slot = 0; slot < KMESH_SLOTS; slot++)
		maps_free_slot(slot);
	settings_shared->prepared = 1;
	settings_shared->paused = 0;
}

bool maps_take_session(const struct kmesh_session_key *key, struct kmesh_session *session)
{
	struct kmesh_session *found = gate_map_lookup(&gate_sessions, key);

	if (!found)
		return false;
	*session = *found;
	return delete (&gate_sessions, key);
}

/* Connections that were established for their client and never reached the gate. */
void maps_forget_unaccepted(void)
{
	struct kmesh_session_key key, next;
	uint64_t now = loop_now * 1000000ull;

	for (bool more = next_key(&gate_sessions, NULL, &key); more; key = next) {
		struct kmesh_session *found = gate_map_lookup(&gate_sessions, &key);
		struct kmesh_session session;

		more = next_key(&gate_sessions, &key, &next);
		if (found && now > found->since + UNACCEPTED_NS &&
		    maps_take_session(&key, &session))
			maps_free_slot(session.slot);
	}
}

void maps_free_slot(uint32_t slot)
{
	element(BPF_MAP_UPDATE_ELEM, gate_map_fd(&free_slots), NULL, &slot, 0);
}

uint64_t maps_socket(uint64_t cookie)
{
	uint64_t *found = gate_map_lookup(&upstream_socks, &cookie);
	uint64_t sock = found ? *found : 0;

	if (found)
		delete (&upstream_socks, &cookie);
	return sock;
}

void maps_name_upstream(uint64_t cookie, uint32_t id)
{
	update(&upstream_ids, &cookie, &id);
}

void maps_forget_upstream(uint64_t cookie)
{
	delete (&upstream_ids, &cookie);
}

uint32_t maps_pools_refused;
static uint8_t used_pools[KMESH_POOLS];
static uint32_t used_pool_count;

static void set_pool_used(uint32_t pool, bool used)
{
	used_pool_count += used - used_pools[pool];
	used_pools[pool] = used;
}

/* Those of the gate before, which gives no more of them once it hands over: so not any sooner. */
static void find_used_pools(void)
{
	static bool found_all;
	struct kmesh_pool_key key, next;

	if (found_all)
		return;
	found_all = true;
	for (bool more = next_key(&pool_numbers, NULL, &key); more; key = next) {
		struct kmesh_pool_number *found = gate_map_lookup(&pool_numbers, &key);

		more = next_key(&pool_numbers, &key, &next);
		if (found)
			set_pool_used(found->pool % KMESH_POOLS, true);
	}
}

bool maps_number_pool(const struct kmesh_pool_key *key, uint32_t *pool)
{
	static uint32_t cursor;
	struct kmesh_pool_number *found = gate_map_lookup(&pool_numbers, key), value;

	if (found) {
		*pool = found->pool;
		return true;
	}
	find_used_pools();
	if (used_pool_count >= GATE_POOLS || used_pool_count >= pool_count) {
		maps_pools_refused++;
		return false;
	}
	do
		value.pool = cursor++ % pool_count;
	while (used_pools[value.pool]);
	*pool = value.pool;
	if (update(&pool_numbers, key, &value))
		return false;
	set_pool_used(value.pool, true);
	pools_shared[value.pool].busy = 0;
	return true;
}

void maps_forget_pool(const struct kmesh_pool_key *key, uint32_t pool)
{
	delete (&pool_numbers, key);
	set_pool_used(pool, false);
}

void maps_forget_pools(bool (*is_known)(const struct kmesh_pool_key *key))
{
	struct kmesh_pool_key key, next;

	for (bool more = next_key(&pool_numbers, NULL, &key); more; key = next) {
		struct kmesh_pool_number *found = gate_map_lookup(&pool_numbers, &key);
		uint32_t pool = found ? found->pool % KMESH_POOLS : 0;

		more = next_key(&pool_numbers, &key, &next);
		if (found && !is_known(&key))
			maps_forget_pool(&key, pool);
	}
}

bool maps_offer(uint32_t pool, uint32_t number, uint32_t upstream)
{
	struct kmesh_idle_key key = {.pool = pool, .number = number};
	struct kmesh_idle value = {.upstream = upstream};

	return !update(&idle, &key, &value);
}

bool maps_take_back(uint32_t pool, uint32_t number)
{
	struct kmesh_idle_key key = {.pool = pool, .number = number};

	return delete (&idle, &key);
}

const char *maps_announce_gate(uint64_t netns, const struct kmesh_gate *gate)
{
	if (!update(&gates, &netns, gate))
		return NULL;
	return errno == E2BIG ? "there are as many network namespaces as the map `gates` holds"
			      : strerror(errno);
}

void maps_withdraw_gate(uint64_t netns)
{
	delete (&gates, &netns);
}
