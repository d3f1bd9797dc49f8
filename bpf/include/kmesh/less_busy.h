/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Least request, as Envoy has it (least_request_lb.cc). Where all endpoints weigh the same, of two
 * that are drawn the one with fewer requests under way; they may be one and the same. Where weights
 * differ, shares are as weight / (requests under way + 1): an endpoint is drawn by weight, kept
 * with the probability 1 / (requests + 1), and else another is drawn. After some draws the least
 * busy of them is taken, so that the cost is bounded: who is busy then has a little more than its
 * share.
 *
 * What is read is a moment's: two programs may see the same endpoint as the less busy at a time.
 */
#ifndef KMESH_LESS_BUSY_H
#define KMESH_LESS_BUSY_H

#include <kmesh/balance.h>

#define KMESH_WEIGHED_DRAWS 4

/* Requests under way to an endpoint; below nothing, too, while a count is wrong. */
typedef __s32 (*kmesh_busy)(const void *whose, const struct kmesh_endpoint *endpoint);

static __always_inline bool kmesh_is_kept(__s32 busy)
{
	return busy <= 0 || !kmesh_below((__u32)busy + 1);
}

static __always_inline void kmesh_pick_weighed(struct kmesh_choice *choice, kmesh_busy busy,
					       const void *whose)
{
	struct kmesh_choice drawn = *choice;
	__s32 least = busy(whose, &choice->endpoint);
	__s32 count = least;

	for (kmesh_counter i = 1; i < KMESH_WEIGHED_DRAWS; i++) {
		if (kmesh_is_kept(count)) {
			*choice = drawn;
			return;
		}
		if (kmesh_pick(&drawn))
			return;
		count = busy(whose, &drawn.endpoint);
		if (count < least) {
			least = count;
			*choice = drawn;
		}
	}
}

/* Put a less busy endpoint in place of the one that was picked, where its cluster wants that. */
static __always_inline void kmesh_pick_less_busy(struct kmesh_choice *choice, kmesh_busy busy,
						 const void *whose)
{
	struct kmesh_slot_key key = {.cluster = choice->cluster, .slot = choice->other};
	struct kmesh_endpoint other;
	__s32 count;

	if (key.slot == KMESH_SLOT_NONE || key.slot == choice->slot)
		return;
	if (key.slot == KMESH_SLOT_WEIGHED) {
		kmesh_pick_weighed(choice, busy, whose);
		return;
	}
	count = busy(whose, &choice->endpoint);
	if (count <= 0 || kmesh_read_slot(&key, &other) || busy(whose, &other) >= count)
		return;
	choice->endpoint = other;
	choice->slot = key.slot;
}

#endif
