// SPDX-License-Identifier: GPL-2.0-only
/* Connections to one endpoint from one namespace, and which of them are idle. */
#include "gate.h"
#include "govern.h"
#include <stdlib.h>
#include <string.h>

#define BUCKETS 4096

static struct pool *buckets[BUCKETS];

static uint32_t bucket_of(const struct kmesh_pool_key *key)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < sizeof(*key); i++)
		hash = (hash ^ ((const uint8_t *)key)[i]) * 16777619u;
	return hash % BUCKETS;
}

static struct kmesh_pool_key key_of(const struct space *space,
				    const struct kmesh_endpoint *endpoint)
{
	struct kmesh_pool_key key = {.netns = space->cookie, .port = endpoint->port};

	memcpy(key.address, endpoint->address, sizeof(key.address));
	return key;
}

struct pool *pool_find(const struct space *space, const struct kmesh_endpoint *endpoint,
		       const struct governed *governed)
{
	const struct kmesh_pool_key key = key_of(space, endpoint);

	for (struct pool *pool = buckets[bucket_of(&key)]; pool; pool = pool->chain)
		if (pool->space == space && pool->governed == governed &&
		    !memcmp(&pool->key, &key, sizeof(key)))
			return pool;
	return NULL;
}

struct pool *pool_of(struct space *space, const struct kmesh_endpoint *endpoint,
		     struct governed *governed)
{
	const struct kmesh_pool_key key = key_of(space, endpoint);
	struct pool **bucket = &buckets[bucket_of(&key)];
	struct pool *pool = pool_find(space, endpoint, governed);

	if (pool)
		return pool;
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		abort();
	pool->key = key;
	pool->space = space;
	space->users++;
	pool->governed = governed;
	if (governed)
		governed->users++;
	/* The node's waypoint has no port, and is none of the kernel's. */
	/* While it hands over the numbers are the next gate's to give. */
	pool->numbered = key.port && !governed && !space->closing && !handing_over &&
			 maps_number_pool(&key, &pool->number);
	pool->chain = *bucket;
	*bucket = pool;
	return pool;
}

void pools_each(void (*call)(struct pool *pool))
{
	for (int i = 0; i < BUCKETS; i++)
		for (struct pool *pool = buckets[i]; pool; pool = pool->chain)
			call(pool);
}

static bool is_known(const struct kmesh_pool_key *key)
{
	for (struct pool *pool = buckets[bucket_of(key)]; pool; pool = pool->chain)
		if (pool->numbered && !memcmp(&pool->key, key, sizeof(*key)))
			return true;
	return false;
}

void pools_forget_unknown(void)
{
	maps_forget_pools(is_known);
}

static void leave_list(struct upstream *upstream)
{
	if (upstream->previous)
		upstream->previous->next = upstream->next;
	else
		upstream->pool->idle = upstream->next;
	if (upstream->next)
		upstream->next->previous = upstream->previous;
	upstream->next = upstream->previous = NULL;
}

/* An idle connection that is now the caller's; none when the kernel has them all. */
struct upstream *pool_take(struct pool *pool)
{
	struct upstream *upstream, *next;

	for (upstream = pool->idle; upstream; upstream = next) {
		next = upstream->next;
		if (upstream_take_back(upstream))
			return upstream;
	}
	return NULL;
}

void pool_put(struct upstream *upstream)
{
	struct pool *pool = upstream->pool;

	upstream->previous = NULL;
	upstream->next = pool->idle;
	if (pool->idle)
		pool->idle->previous = upstream;
	pool->idle = upstream;
}

void pool_out(struct upstream *upstream)
{
	leave_list(upstream);
}

void pool_free_if_unused(struct pool *pool)
{
	struct pool **at = &buckets[bucket_of(&pool->key)];

	if (pool->count || pool->waiting || pool->stirred)
		return;
	while (*at != pool)
		at = &(*at)->chain;
	*at = pool->chain;
	/* A namespace that came back has another of the same number. */
	if (pool->numbered && !handing_over && !is_known(&pool->key))
		maps_forget_pool(&pool->key, pool->number);
	if (pool->governed)
		pool->governed->users--;
	space_leave(pool->space);
	free(pool);
}

void pool_enter(struct upstream *upstream)
{
	struct pool *pool = upstream->pool;

	upstream->beside = pool->all;
	upstream->beside_at = &pool->all;
	if (pool->all)
		pool->all->beside_at = &upstream->beside;
	pool->all = upstream;
}

void pool_leave(struct upstream *upstream)
{
	*upstream->beside_at = upstream->beside;
	if (upstream->beside)
		upstream->beside->beside_at = upstream->beside_at;
}

void pool_gain(struct pool *pool)
{
	pool->count++;
	if (pool->governed)
		pool->governed->connections++;
}

void pool_release(struct pool *pool)
{
	pool->count--;
	if (pool->governed) {
		pool->governed->connections--;
		breaker_stir(pool);
	}
	pool_free_if_unused(pool);
}
