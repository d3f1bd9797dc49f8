// SPDX-License-Identifier: GPL-2.0-only
/*
 * Circuit breakers: how many connections a cluster has, how many requests wait for one, and how
 * many are under way. A request that waits is given a connection of its endpoint's when one is
 * free, in the order in which they came. (Envoy: source/common/conn_pool/conn_pool_base.cc)
 */
#include "exchange.h"
#include "govern.h"
#include <errno.h>

static struct pool *stirred;

/* Who waits there is looked at when this round's events are over. */
void breaker_stir(struct pool *pool)
{
	if (!pool->waiting || pool->stirred)
		return;
	pool->stirred = true;
	pool->stirred_next = stirred;
	stirred = pool;
}

static void wait_in(struct pool *pool, struct exchange *exchange)
{
	exchange->waits_in = pool;
	exchange->waiting_previous = pool->waiting ? pool->waiting_last : NULL;
	exchange->waiting_next = NULL;
	if (pool->waiting)
		pool->waiting_last->waiting_next = exchange;
	else
		pool->waiting = exchange;
	pool->waiting_last = exchange;
}

/* The pool stays, whoever else is in it. */
static void wait_no_more(struct exchange *exchange)
{
	struct pool *pool = exchange->waits_in;

	if (exchange->waiting_previous)
		exchange->waiting_previous->waiting_next = exchange->waiting_next;
	else
		pool->waiting = exchange->waiting_next;
	if (exchange->waiting_next)
		exchange->waiting_next->waiting_previous = exchange->waiting_previous;
	else
		pool->waiting_last = exchange->waiting_previous;
	exchange->waits_in = NULL;
}

static struct member *member_of(const struct exchange *exchange)
{
	return governed_member(exchange->route.governed, exchange->route.endpoint.address,
			       exchange->route.endpoint.port);
}

static void set_pending(struct exchange *exchange, bool pending)
{
	struct governed *governed = exchange->route.governed;

	if (exchange->pending != pending)
		governed->pending += pending ? 1 : -1;
	exchange->pending = pending;
}

bool breaker_attach(struct exchange *exchange)
{
	struct governed *governed = exchange->route.governed;
	struct upstream *upstream = exchange->upstream;
	struct member *member = member_of(exchange);

	set_pending(exchange, false);
	if (governed->requests >= governed->rules.max_requests) {
		stat_overflow(KMESH_OVERFLOW_REQUESTS);
		exchange->overloaded = true;
		return false;
	}
	governed->requests++;
	exchange->counted = true;
	if (member) {
		member->active++;
		member->past.local_failures = 0; /* it can be reached */
	}
	if (++upstream->requests == governed->rules.connection_requests)
		upstream->worn = true;
	return true;
}

void breaker_leave(struct exchange *exchange)
{
	struct governed *governed = exchange->route.governed;
	struct pool *pool = exchange->waits_in;
	struct member *member;

	if (!governed)
		return;
	set_pending(exchange, false);
	if (pool) {
		wait_no_more(exchange);
		pool_free_if_unused(pool);
	}
	if (!exchange->counted)
		return;
	exchange->counted = false;
	governed->requests--;
	member = member_of(exchange);
	if (member && member->active)
		member->active--;
}

void breaker_failed(const struct exchange *exchange)
{
	outlier_failed(exchange->route.governed, exchange->route.endpoint.address,
		       exchange->route.endpoint.port);
}

static bool may_dial(const struct pool *pool)
{
	const struct governed *governed = pool->governed;

	/* An endpoint without any gets one, or nobody could ever be served there. */
	return !pool->count || governed->connections < governed->rules.max_connections;
}

void breaker_seek(struct exchange *exchange, struct pool *pool)
{
	struct governed *governed = pool->governed;

	if (pool->idle) {
		exchange->upstream = pool->idle;
		if (!breaker_attach(exchange)) {
			exchange->upstream = NULL;
			return;
		}
		pool_take(pool)->exchange = exchange;
		return;
	}
	if (governed->pending >= governed->rules.max_pending) {
		stat_overflow(KMESH_OVERFLOW_PENDING);
		exchange->overloaded = true;
		pool_free_if_unused(pool);
		return;
	}
	if (!may_dial(pool)) {
		stat_overflow(KMESH_OVERFLOW_CONNECTIONS);
		wait_in(pool, exchange);
		set_pending(exchange, true);
		return;
	}
	exchange->upstream = upstream_dial(pool, exchange);
	if (exchange->upstream)
		set_pending(exchange, true);
	else if (!exchange->scarce)
		breaker_failed(exchange);
}

/* A connection could not be made: who waits for one there is to go elsewhere, if he can. */
void breaker_fail_waiting(struct pool *pool)
{
	uint32_t count = 0; /* they may come to wait here again */

	for (struct exchange *one = pool->waiting; one; one = one->waiting_next)
		count++;
	for (; count && pool->waiting; count--) {
		struct exchange *exchange = pool->waiting;

		wait_no_more(exchange);
		exchange_connected(exchange, ECONNREFUSED);
	}
}

static void serve(struct pool *pool)
{
	while (pool->waiting) {
		struct exchange *exchange = pool->waiting;

		if (pool->idle) {
			wait_no_more(exchange);
			exchange->upstream = pool_take(pool);
			exchange->upstream->exchange = exchange;
			exchange_connected(exchange, 0);
		} else if (may_dial(pool)) {
			wait_no_more(exchange);
			exchange->upstream = upstream_dial(pool, exchange);
			if (!exchange->upstream && exchange->scarce) {
				set_pending(exchange, false);
				scarce_wait(exchange);
			} else if (!exchange->upstream) {
				exchange_connected(exchange, ECONNREFUSED);
			}
		} else {
			return;
		}
	}
}

void breakers_settle(void)
{
	while (stirred) {
		struct pool *pool = stirred;

		stirred = pool->stirred_next;
		serve(pool);
		pool->stirred = false;
		pool_free_if_unused(pool);
	}
}
