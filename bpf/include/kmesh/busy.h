/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How many requests are under way to an endpoint, from one network namespace as from one sidecar:
 * the gate's own, and those that the kernel sent for clusters that want the less busy endpoint.
 *
 * A connection has one request at a time. While that is counted the connection says so
 * (KMESH_REQUEST_COUNTED), from when it is sent until its response goes home, or the gate has read
 * it, or has closed the connection for whatever reason. Should two see the end at a time, or none,
 * the count is off by one: the gate compares it with the connections (runtime/gate/busy.c), and
 * until then it costs balance, and nothing else.
 */
#ifndef KMESH_BUSY_H
#define KMESH_BUSY_H

#include <kmesh/gate.h>

static __always_inline void kmesh_add_busy(const struct kmesh_upstream *upstream, __s32 more)
{
	struct kmesh_pool *pool = bpf_map_lookup_elem(&pools, &upstream->pool);

	if (pool)
		__sync_fetch_and_add(&pool->busy, more);
}

/* Once it is certain to be sent: nobody has answered it before the program ends. */
static __always_inline void kmesh_is_sent(struct kmesh_upstream *upstream)
{
	upstream->flags |= KMESH_REQUEST_COUNTED;
	kmesh_add_busy(upstream, 1);
}

static __always_inline void kmesh_is_answered(struct kmesh_upstream *upstream)
{
	if (!(upstream->flags & KMESH_REQUEST_COUNTED))
		return;
	upstream->flags &= ~KMESH_REQUEST_COUNTED;
	kmesh_add_busy(upstream, -1);
}

#endif
