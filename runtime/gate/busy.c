// SPDX-License-Identifier: GPL-2.0-only
/*
 * How many requests are under way to an endpoint (bpf/include/kmesh/busy.h): the gate counts its
 * own, takes those of the kernel out that end here, and compares the count with its connections.
 *
 * Nothing depends on who comes first: whatever makes a count wrong (the kernel and the gate see the
 * same end, a gate dies while it hands over) makes it differ from the connections, and stays so.
 * Only such a difference is mended, for a count that is in use is now and then read half way.
 */
#include "gate.h"
#include "handover.h"

#define LOOKS 8 /* to find a moment in which nobody counts */

static void add(uint32_t number, int32_t more)
{
	if (number != KMESH_NO_POOL)
		__atomic_fetch_add(&pools_shared[number].busy, more, __ATOMIC_RELAXED);
}

static int32_t busy_in(const struct pool *pool)
{
	return __atomic_load_n(&pools_shared[pool->number].busy, __ATOMIC_RELAXED);
}

int32_t busy_at(struct space *space, const struct kmesh_endpoint *endpoint)
{
	const struct pool *pool = pool_find(space, endpoint, NULL);

	return pool && pool->numbered ? busy_in(pool) : 0;
}

/* It is given to a request of the gate's. */
void busy_begin(struct upstream *upstream)
{
	upstream->counted = upstream->pool->numbered;
	if (upstream->counted)
		add(upstream->pool->number, 1);
}

/* It has no request any more, whosever it was. */
void busy_end(struct upstream *upstream)
{
	struct kmesh_upstream *shared = &upstreams_shared[upstream->id];

	if (upstream->counted)
		add(upstream->pool->number, -1);
	upstream->counted = upstream->doubted = false;
	if (upstream->state != UPSTREAM_DIALLING &&
	    __atomic_fetch_and(&shared->flags, ~KMESH_REQUEST_COUNTED, __ATOMIC_RELAXED) &
		    KMESH_REQUEST_COUNTED)
		add(shared->pool, -1);
}

/* Nobody waits for it, at one look and at the next: its client has gone, say. */
static bool is_over(struct upstream *upstream)
{
	bool doubted = upstream->doubted;

	upstream->doubted = !upstream_is_taken(upstream);
	return doubted && upstream->doubted;
}

static uint32_t is_counted(struct upstream *upstream)
{
	if (upstream->state == UPSTREAM_DIALLING)
		return upstream->counted;
	return upstream->counted + !!(upstreams_shared[upstream->id].flags & KMESH_REQUEST_COUNTED);
}

static void end_what_is_over(struct pool *pool)
{
	for (struct upstream *one = pool->all; one; one = one->beside)
		if (is_counted(one) && !one->counted && is_over(one))
			busy_end(one);
}

/* False: it is counted all the time. */
static bool compare(const struct pool *pool, int32_t *off)
{
	for (int i = 0; i < LOOKS; i++) {
		int32_t count = busy_in(pool);

		*off = count;
		for (struct upstream *one = pool->all; one; one = one->beside)
			*off -= is_counted(one);
		if (busy_in(pool) == count)
			return true;
	}
	return false;
}

static void look_at(struct pool *pool)
{
	int32_t off;

	if (!pool->numbered || (!busy_in(pool) && !pool->off))
		return;
	end_what_is_over(pool);
	if (!compare(pool, &off))
		return;
	if (off && off == pool->off) {
		add(pool->number, -off);
		off = 0;
	}
	pool->off = off;
}

/* While two gates are at work neither knows the other's connections. */
void busy_tick(void)
{
	if (!handing_over && !handover_goes_on())
		pools_each(look_at);
}
