// SPDX-License-Identifier: GPL-2.0-only
/*
 * When numbers of upstreams or descriptors get short, those that nobody uses make room: the fuller
 * it is, the sooner. Who finds none left all the same waits for a while: what the kernel holds for
 * a client is nobody's only when no program can be about to use it.
 */
#include "exchange.h"
#include <sys/resource.h>

#define FULL_PART   16 /* one in so many is kept free */
#define OTHER_FILES 64 /* descriptors that are neither a session's nor an upstream's */

uint64_t scarce_ended;
uint32_t scarce_waiting;

static struct exchange *first, *last;
static bool worth_a_try; /* something has changed for those that wait */
static bool squeezed;	 /* the system refused a descriptor since the last tick */
static uint32_t percent; /* how full it is */

uint64_t scarce_patience(void)
{
	uint32_t left = percent < 100 ? 100 - percent : 0;

	return GATE_IDLE_SECONDS * 1000 * (left < 50 ? left : 50) / 50;
}

void scarce_look(void)
{
	worth_a_try = true;
}

void scarce_squeeze(void)
{
	squeezed = true;
}

static bool end_oldest_unused(void)
{
	struct upstream *oldest;

	while ((oldest = unused_oldest(UPSTREAM_IDLE))) {
		if (!upstream_end_unused(oldest))
			continue; /* the kernel has it, so it is not unused any more */
		scarce_ended++;
		return true;
	}
	return false;
}

static bool recall_oldest_held(void)
{
	struct upstream *oldest = unused_oldest(UPSTREAM_HELD);

	if (!oldest)
		return false;
	upstream_recall(oldest);
	scarce_ended++;
	return true;
}

bool scarce_make_room(void)
{
	if (end_oldest_unused())
		return true;
	if (upstreams_leaving <= scarce_waiting)
		recall_oldest_held();
	return false;
}

void scarce_wait(struct exchange *exchange)
{
	if (exchange->scarce_since)
		return;
	exchange->scarce_since = loop_now;
	exchange->scarce_previous = last;
	exchange->scarce_next = NULL;
	*(last ? &last->scarce_next : &first) = exchange;
	last = exchange;
	scarce_waiting++;
}

void scarce_leave(struct exchange *exchange)
{
	struct exchange *previous = exchange->scarce_previous, *next = exchange->scarce_next;

	if (!exchange->scarce_since)
		return;
	exchange->scarce_since = 0;
	*(previous ? &previous->scarce_next : &first) = next;
	*(next ? &next->scarce_previous : &last) = previous;
	scarce_waiting--;
}

void scarce_settle(void)
{
	while (worth_a_try && first) {
		struct exchange *exchange = first;

		exchange_seek_again(exchange);
		worth_a_try = first != exchange;
	}
	worth_a_try = false;
}

static uint32_t descriptors_most(void)
{
	struct rlimit limit = {.rlim_cur = OTHER_FILES};

	getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur > OTHER_FILES ? limit.rlim_cur - OTHER_FILES : 1;
}

static uint32_t beyond(uint32_t used, uint32_t most)
{
	uint32_t enough = most - most / FULL_PART;

	return used > enough ? used - enough : 0;
}

/* The oldest go before anybody needs their place, also where a client comes back to them often. */
static void keep_some_free(uint32_t excess)
{
	for (uint32_t i = upstreams_leaving; i < excess; i++)
		if (!end_oldest_unused() && !recall_oldest_held())
			return;
}

void scarce_tick(void)
{
	uint32_t files = numbers_used + session_count, most = descriptors_most();
	uint32_t of_numbers = numbers_used * 100ull / GATE_UPSTREAMS;
	uint32_t of_files = squeezed ? 100 : files * 100ull / most;
	uint32_t excess = beyond(numbers_used, GATE_UPSTREAMS);

	if (squeezed || beyond(files, most) > excess)
		excess = squeezed ? most / FULL_PART + 1 : beyond(files, most);
	percent = of_numbers > of_files ? of_numbers : of_files;
	squeezed = false;
	keep_some_free(excess);
	while (first && loop_now - first->scarce_since > GATE_DIAL_MS)
		exchange_wait_no_more(first);
	worth_a_try = true;
}
