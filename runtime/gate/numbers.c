// SPDX-License-Identifier: GPL-2.0-only
/*
 * The numbers of upstreams. The one that has been free the longest is given first: whoever still
 * has it in his hands from before shall find nobody there. While one gate hands over to the next
 * both give numbers, so each is theirs who writes it down first.
 */
#include "gate.h"

#define LOOKS 1024 /* for one that the other gate does not use; then there is none for now */

uint32_t numbers_used;

static uint32_t ring[KMESH_UPSTREAMS];
static uint32_t ring_first, ring_count;
static bool is_in_ring[KMESH_UPSTREAMS];

static void put(uint32_t id)
{
	if (is_in_ring[id])
		return;
	is_in_ring[id] = true;
	ring[(ring_first + ring_count++) % KMESH_UPSTREAMS] = id;
}

static uint32_t first(void)
{
	uint32_t id = ring[ring_first];

	ring_first = (ring_first + 1) % KMESH_UPSTREAMS;
	ring_count--;
	is_in_ring[id] = false;
	return id;
}

static void fill(void)
{
	static bool filled;

	if (filled)
		return;
	filled = true;
	for (uint32_t id = 0; id < GATE_UPSTREAMS; id++)
		put(id);
}

/* A gate of a version before this one writes down but `cookie`. */
static bool take(uint32_t id)
{
	struct kmesh_upstream *shared = &upstreams_shared[id];
	uint32_t nobody = 0;

	return !__atomic_load_n(&shared->cookie, __ATOMIC_ACQUIRE) &&
	       __atomic_compare_exchange_n(&shared->used, &nobody, 1, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

bool number_take(uint32_t *id)
{
	fill();
	for (int i = 0; i < LOOKS && ring_count; i++) {
		*id = first();
		if (upstreams[*id])
			continue; /* it was adopted; it comes back with its end */
		if (take(*id)) {
			numbers_used++;
			return true;
		}
		put(*id);
	}
	return false;
}

void number_adopt(uint32_t id)
{
	upstreams_shared[id].used = 1;
	numbers_used++;
}

void number_leave(uint32_t id)
{
	numbers_used--;
	put(id);
}

void number_give(uint32_t id)
{
	__atomic_store_n(&upstreams_shared[id].used, 0, __ATOMIC_RELEASE);
	numbers_used--;
	put(id);
}
