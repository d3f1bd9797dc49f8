// SPDX-License-Identifier: GPL-2.0-only
/*
 * The gate's question about a client that does not wait for responses: is the last one that went
 * home still on its way? Attached nowhere, the gate runs it (BPF_PROG_TEST_RUN). Its input is what
 * looks like an Ethernet header, and the number of a slot.
 */
#include <kmesh/drift.h>
#include <kmesh/gate.h>
#include <kmesh/underway.h>

char LICENSE[] SEC("license") = "GPL";

SEC("socket")
int kmesh_ask_underway(struct __sk_buff *skb)
{
	struct kmesh_slot *slot;
	__u32 number;

	if (bpf_skb_load_bytes(skb, 0, &number, sizeof(number)))
		return -1;
	slot = bpf_map_lookup_elem(&gate_slots, &number);
	return slot && kmesh_is_under_way(slot);
}
