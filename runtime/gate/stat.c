// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counting requests by route, in memory that the kernel keeps: no system call, and nothing is lost
 * with the gate. What is added is added whole, as two gates are at it while one hands over.
 */
#include "stat.h"
#include "gate.h"
#include "maps.h"
#include <kmesh/gate.h>
#include <kmesh/stat.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct kmesh_route_stat *stats_shared;
static struct kmesh_gate_stat *gate_stat_shared;

static const uint16_t codes[KMESH_STAT_CODES] = KMESH_STAT_CODE_LIST;

int stat_open(void)
{
	stats_shared = gate_map_share(&route_stats, sizeof(*stats_shared) * KMESH_STATS);
	gate_stat_shared = gate_map_share(&gate_stat, sizeof(*gate_stat_shared));
	if (stats_shared && gate_stat_shared)
		return 0;
	say("cannot map the counters: %s", strerror(errno));
	return -1;
}

static void add(__u64 *to, uint64_t value)
{
	__atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}

void stat_verdict(int verdict)
{
	if (verdict > 0 && verdict < KMESH_STAT_VERDICTS)
		add(&gate_stat_shared->verdicts[verdict], 1);
}

void stat_log_dropped(uint32_t lines)
{
	add(&gate_stat_shared->log_dropped, lines);
}

void stat_begin(struct measure *measure, uint32_t stat, uint8_t by)
{
	measure->since = clock_ns();
	measure->stat = stat;
	measure->by = by;
}

void stat_overflow(enum kmesh_overflow which)
{
	add(&gate_stat_shared->overflows[which], 1);
}

void stat_ejection(enum kmesh_ejection which)
{
	add(&gate_stat_shared->ejections[which], 1);
}

void stat_ejected(uint32_t endpoints)
{
	__atomic_store_n(&gate_stat_shared->ejected, endpoints, __ATOMIC_RELAXED);
}

/* The kernel has said when, and what. */
void stat_begin_taken(struct measure *measure, uint32_t upstream)
{
	const struct kmesh_upstream *shared = &upstreams_shared[upstream];

	measure->since = shared->since;
	measure->stat = shared->stat;
	measure->by = KMESH_BY_KERNEL;
	measure->request_bytes = shared->size;
}

void stat_head(struct measure *measure, unsigned int status)
{
	if (measure->head_at)
		return;
	measure->head_at = clock_ns();
	measure->status = status;
}

/* Bucket n has what took less than 2^n us, and not less than half of that. */
static uint32_t bucket(uint64_t ns)
{
	uint64_t us = ns / 1000;
	uint32_t found = us ? 64 - __builtin_clzll(us) : 0;

	return found < KMESH_STAT_BUCKETS ? found : KMESH_STAT_BUCKETS - 1;
}

static uint64_t between(uint64_t since, uint64_t until)
{
	return until > since ? until - since : 0;
}

static void count_code(struct kmesh_route_stat *stat, uint16_t status)
{
	for (uint32_t i = 0; i < KMESH_STAT_CODES; i++) {
		if (codes[i] == status) {
			add(&stat->codes[i], 1);
			return;
		}
	}
}

static void count(const struct measure *measure, uint64_t now)
{
	uint32_t number = measure->stat < KMESH_STATS ? measure->stat : KMESH_STAT_OTHER;
	struct kmesh_route_stat *stat = &stats_shared[number];
	uint32_t class = measure->status / 100;
	uint64_t took = between(measure->since, now);

	class = class < KMESH_STAT_CLASSES ? class : 0;
	add(&stat->requests[measure->by * KMESH_STAT_CLASSES + class], 1);
	add(&stat->request_bytes[measure->by], measure->request_bytes);
	add(&stat->response_bytes[measure->by], measure->response_bytes);
	count_code(stat, measure->status);
	add(&stat->end_ns, took);
	add(&stat->end[bucket(took)], 1);
	if (!measure->head_at)
		return;
	took = between(measure->since, measure->head_at);
	add(&stat->head_ns, took);
	add(&stat->head[bucket(took)], 1);
}

uint64_t stat_route_name(uint32_t stat)
{
	return stat < KMESH_STATS ? stats_shared[stat].name : 0;
}

void stat_end(struct measure *measure, const struct session *session)
{
	uint64_t now = clock_ns();

	count(measure, now);
	if (measure->line)
		log_write(measure, session, now);
	free(measure->line);
	measure->line = NULL;
}

void stat_refused(const struct session *session, uint32_t stat, int status, size_t length)
{
	struct measure measure = {.response_bytes = length};

	stat_begin(&measure, stat, KMESH_BY_GATE);
	stat_head(&measure, status);
	stat_end(&measure, session);
}

void stat_unanswered(const struct session *session, uint32_t upstream)
{
	struct measure measure = {};

	stat_begin_taken(&measure, upstream % KMESH_UPSTREAMS);
	log_taken(&measure, upstream);
	stat_end(&measure, session);
}
