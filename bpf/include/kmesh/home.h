/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which responses may go to their client within the kernel, past the gate: whole ones whose head
 * tells their length, for a client that has read all that the gate sent it. All others are the
 * gate's.
 */
#ifndef KMESH_HOME_H
#define KMESH_HOME_H

#include <kmesh/client.h>
#include <kmesh/flow_control.h>
#include <kmesh/http/response.h>
#include <kmesh/order.h>
#include <kmesh/ready.h>
#include <kmesh/stat.h>
#include <kmesh/underway.h>

#define KMESH_HOME_WHOLE 65536

/* The slot of the client whose request it has, if the kernel may do without the gate. */
static __always_inline struct kmesh_slot *kmesh_home_slot(const struct kmesh_upstream *upstream,
							  __u32 number)
{
	struct kmesh_slot *slot;

	if (!(upstream->flags & KMESH_REQUEST_HELD) || upstream->recalled || upstream->broken ||
	    upstream->flags & (KMESH_REQUEST_HEAD | KMESH_RESPONSE_PASSED))
		return NULL;
	slot = bpf_map_lookup_elem(&gate_slots, &upstream->slot);
	if (!slot || slot->cookie != upstream->client || slot->upstream != number)
		return NULL;
	if (slot->taken == slot->done || !slot->open || slot->by_gate || slot->pipelines)
		return NULL;
	return slot;
}

/* The response is on its way, or will be as soon as the program ends; and who sends it. */
static __always_inline void kmesh_gone_home(const struct kmesh_upstream *upstream,
					    struct kmesh_slot *slot, __u32 status, __u32 size,
					    __u64 psock, __u64 sender)
{
	kmesh_count_response(upstream, status, size);
	slot->homed_at = slot->responded;
	slot->homed_ns = bpf_ktime_get_ns();
	kmesh_name_sender(slot, psock, sender);
	kmesh_order(); /* who reads that it is done reads when, and by whom */
	slot->done += 1;
	kmesh_count(KMESH_WENT_HOME);
}

#endif
