/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A waypoint's instance that does not take a connection is barred: new connections go to another
 * for a while, twice as long after each failure. Then one connection tries it for all; when it is
 * established the bar is gone. Where all are barred none is: trying beats refusing.
 *
 * An application that gives up while it connects looks like a failure. That costs the instance
 * seconds of absence and nobody a connection.
 */
#ifndef KMESH_BAR_H
#define KMESH_BAR_H

#include <kmesh/address.h>
#include <kmesh/balance.h>
#include <kmesh/maps.h>
#include <stdbool.h>

#define KMESH_BAR_NS	    5000000000ull
#define KMESH_BAR_DOUBLINGS 4 /* 80 s */
#define KMESH_TRIAL_NS	    1000000000ull
#define KMESH_FULL_NS	    1000000000ull
#define KMESH_LOOKS	    32 /* slots and classes looked at for another instance */

static __always_inline void kmesh_count_waypoint(__u32 which)
{
	__u64 *count = bpf_map_lookup_elem(&waypoint_counters, &which);

	/* A softirq may come in between on this processor. */
	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void kmesh_bar_key(struct kmesh_bar_key *key, const __be32 *address,
					  __be16 port)
{
	kmesh_copy_address(key->address, address);
	key->port = port;
	key->pad[0] = 0;
	key->pad[1] = 0;
}

/* Whether an instance is to be left alone; when its time is over, whoever asks first tries it. */
static __always_inline bool kmesh_is_barred(const struct kmesh_endpoint *endpoint)
{
	struct kmesh_bar_key key;
	struct kmesh_bar *known, now = {.trying = 1};
	__u64 time;

	kmesh_bar_key(&key, endpoint->address, endpoint->port);
	known = bpf_map_lookup_elem(&barred, &key);
	if (!known)
		return false;
	time = bpf_ktime_get_ns();
	if (time < known->until_ns)
		return true;
	now.until_ns = time + KMESH_TRIAL_NS;
	now.failures = known->failures;
	bpf_map_update_elem(&barred, &key, &now, BPF_EXIST);
	return false;
}

static __always_inline void kmesh_bar(const __be32 *address, __be16 port)
{
	__u64 time = bpf_ktime_get_ns();
	struct kmesh_bar_key key;
	struct kmesh_bar *known, now = {};

	kmesh_bar_key(&key, address, port);
	known = bpf_map_lookup_elem(&barred, &key);
	if (known) {
		/* Others that were under way when it failed tell nothing new. */
		if (time < known->until_ns && !known->trying)
			return;
		now.failures = known->failures;
	}
	now.until_ns =
		time + (KMESH_BAR_NS << (now.failures < KMESH_BAR_DOUBLINGS ? now.failures
									    : KMESH_BAR_DOUBLINGS));
	now.failures += 1;
	bpf_map_update_elem(&barred, &key, &now, BPF_ANY);
}

static __always_inline void kmesh_unbar(const __be32 *address, __be16 port)
{
	struct kmesh_bar_key key;

	kmesh_bar_key(&key, address, port);
	if (bpf_map_lookup_elem(&barred, &key))
		bpf_map_delete_elem(&barred, &key);
}

/*
 * The slot of an instance that is not barred, looked for from anywhere in a class on. Not inlined
 * and not static, so that the verifier judges it by itself (since 5.6, 51c39bb1d5d1).
 */
__attribute__((noinline)) __u32 kmesh_another_slot(__u64 number, __u32 class)
{
	struct kmesh_cluster_key key = {.cluster = number};
	struct kmesh_cluster *cluster = bpf_map_lookup_elem(&clusters, &key);
	struct kmesh_slot_key at = {.cluster = number};
	struct kmesh_endpoint other;
	__u32 index;

	if (!cluster)
		return KMESH_SLOT_NONE;
	class &= KMESH_CLASSES - 1;
	index = kmesh_below(cluster->counts[class]);
	for (int i = 0; i < KMESH_LOOKS; i++) {
		if (index >= cluster->counts[class]) {
			class = (class + 1) & (KMESH_CLASSES - 1);
			index = 0;
			continue;
		}
		at.slot = class << KMESH_CLASS_SHIFT | index;
		index += 1;
		if (!kmesh_read_slot(&at, &other) && !kmesh_is_barred(&other))
			return at.slot;
	}
	return KMESH_SLOT_NONE;
}

/* Put an instance that is not barred in place of one that is. */
static __always_inline void kmesh_pick_another(struct kmesh_choice *choice)
{
	struct kmesh_slot_key at = {.cluster = choice->cluster};
	struct kmesh_endpoint other;

	at.slot = kmesh_another_slot(choice->cluster, choice->slot >> KMESH_CLASS_SHIFT);
	if (at.slot == KMESH_SLOT_NONE || kmesh_read_slot(&at, &other))
		return;
	choice->endpoint = other;
	choice->slot = at.slot;
	kmesh_count_waypoint(KMESH_DIVERTED);
}

/* Whether a connection to a waypoint would find no room for its introduction. */
static __always_inline bool kmesh_no_room(void)
{
	const __u32 only = 0;
	__u64 *last = bpf_map_lookup_elem(&introductions_full, &only);

	if (!last || !*last || bpf_ktime_get_ns() - *last > KMESH_FULL_NS)
		return false;
	kmesh_count_waypoint(KMESH_NO_ROOM);
	return true;
}

#endif
