/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Picking an endpoint, exactly by weight, in constant time however many there are.
 *
 * A class is drawn by the sum of its weights, then an endpoint of the class uniformly, which is
 * kept with the probability weight / 2^(class + 1), at least one half; otherwise it is drawn again
 * within the class. (Y. Matias, J. Vitter, W. Ni: Dynamic generation of discrete random variates,
 * 1993.) So one endpoint more or less changes one slot and one cluster, whatever the weights are.
 *
 * Since 6.1 a hash reuses a removed element at once: what a pointer shows may become another key's
 * value while it is read. So a value is copied and then looked up again: the same element still
 * under the same key means that the copy is good.
 */
#ifndef KMESH_BALANCE_H
#define KMESH_BALANCE_H

#include <kmesh/compiler.h>
#include <kmesh/maps.h>

struct kmesh_choice {
	struct kmesh_endpoint endpoint;
	__u64 cluster;
	__u32 slot;
	__u32 other; /* a slot to compare it with, or one of those below */
	__u32 frontend_flags;
	__u32 pad;
};

#define KMESH_DRAWS   32 /* all fail once in 2^32 */
#define KMESH_RETRIES 4	 /* of a pick that an update got in the way of */

/* Uniform in [0, n): the bias is below n / 2^32. */
static __always_inline __u32 kmesh_below(__u32 n)
{
	return ((__u64)bpf_get_prandom_u32() * n) >> 32;
}

static __always_inline int kmesh_read_slot(const struct kmesh_slot_key *key,
					   struct kmesh_endpoint *copy)
{
	struct kmesh_endpoint *found = bpf_map_lookup_elem(&slots, key);

	if (!found)
		return -1;
	*copy = *found;
	return bpf_map_lookup_elem(&slots, key) == found ? 0 : -1;
}

#define KMESH_SLOT_NONE	   0xffffffff /* the cluster has no endpoint; nothing to compare with */
#define KMESH_SLOT_GONE	   0xfffffffe /* an update got in the way */
#define KMESH_SLOT_WEIGHED 0xfffffffd /* weights differ: others are to be drawn by them */

static __always_inline __u32 kmesh_draw(__u64 number, __u32 class, __u32 count, __u32 turn)
{
	struct kmesh_slot_key key = {.cluster = number};
	struct kmesh_endpoint drawn;

	for (kmesh_counter i = 0; i < KMESH_DRAWS; i++) {
		if (!class) { /* all of it weigh one */
			key.slot = count ? turn % count : 0;
			break;
		}
		key.slot = class << KMESH_CLASS_SHIFT | kmesh_below(count);
		if (kmesh_read_slot(&key, &drawn))
			return KMESH_SLOT_GONE;
		if (kmesh_below(2u << class) < drawn.weight)
			break;
	}
	return key.slot;
}

/* What a drawn slot is compared with. */
static __always_inline __u32 kmesh_other(const struct kmesh_cluster *cluster)
{
	if (!(cluster->flags & KMESH_CLUSTER_LESS_BUSY))
		return KMESH_SLOT_NONE;
	return cluster->counts[0] == cluster->total ? kmesh_below(cluster->total)
						    : KMESH_SLOT_WEIGHED;
}

/*
 * Draw a slot of a cluster; of those that weigh one the one whose turn it is. In the upper half is
 * what to compare it with. Not inlined and not
 * static, so that the verifier judges it once and not for every program and attempt (since 5.6,
 * 51c39bb1d5d1); 5.10 takes no arguments but numbers.
 */
__attribute__((noinline)) __u64 kmesh_pick_slots(__u64 number, __u32 turn)
{
	struct kmesh_cluster_key key = {.cluster = number};
	struct kmesh_cluster *cluster = bpf_map_lookup_elem(&clusters, &key);
	__u64 other;
	__u32 left;

	if (!cluster || !cluster->total)
		return KMESH_SLOT_NONE;
	if (cluster->flags & KMESH_CLUSTER_ANY)
		turn = bpf_get_prandom_u32();
	other = (__u64)kmesh_other(cluster) << 32;
	left = kmesh_below(cluster->total);
	for (kmesh_counter class = 0; class < KMESH_CLASSES; class ++) {
		__u32 weight = cluster->weights[class];

		if (left < weight)
			return other | kmesh_draw(number, class, cluster->counts[class], turn);
		left -= weight;
	}
	return KMESH_SLOT_GONE;
}

/* Choose an endpoint of choice->cluster; 0, or 1 when it has none. `turn`: any number. */
static __always_inline int kmesh_pick_in_turn(struct kmesh_choice *choice, __u32 turn)
{
	struct kmesh_slot_key key = {.cluster = choice->cluster};

	for (kmesh_counter i = 0; i < KMESH_RETRIES; i++) {
		__u64 slots = kmesh_pick_slots(choice->cluster, turn + i);

		key.slot = (__u32)slots;
		choice->other = slots >> 32;
		if (key.slot == KMESH_SLOT_NONE)
			return 1;
		if (key.slot == KMESH_SLOT_GONE || kmesh_read_slot(&key, &choice->endpoint))
			continue;
		choice->slot = key.slot;
		return 0;
	}
	return 1;
}

static __always_inline int kmesh_pick(struct kmesh_choice *choice)
{
	return kmesh_pick_in_turn(choice, bpf_get_prandom_u32());
}

#endif
