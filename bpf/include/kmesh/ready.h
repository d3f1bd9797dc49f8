/* SPDX-License-Identifier: GPL-2.0-only */
/* Whether a client takes a response that is redirected to it, past the gate. */
#ifndef KMESH_READY_H
#define KMESH_READY_H

#include <kmesh/flow_control.h>
#include <kmesh/gate_types.h>
#include <stdbool.h>

#define KMESH_READY_WAITING  (256 * 1024)
#define KMESH_READY_AFTER_NS 2000 /* more than redirecting takes, less than any reply to it */

/* It has read all that the gate sent, takes what is redirected to it, and reads. */
static __always_inline bool kmesh_is_ready(const struct kmesh_slot *slot)
{
	struct tcp_sock *tp = (void *)(long)slot->sock;
	struct sock *sk = (void *)(long)slot->sock;

	return BPF_CORE_READ(tp, copied_seq) - slot->first_received == slot->responded &&
	       BPF_CORE_READ(sk, __sk_common.skc_state) == BPF_TCP_ESTABLISHED &&
	       kmesh_never_blocks(slot->sock) && !kmesh_waits_for_more(slot->sock) &&
	       !kmesh_has_layer(slot->sock) && kmesh_waiting(slot->sock) < KMESH_READY_WAITING;
}

/*
 * A response that goes home is in the client's queue only a moment after its program has said so.
 * What a client sends in that moment it did not send for the response: it would not have read it
 * yet. Nothing may be put in front, and no more responses go home.
 */
static __always_inline bool kmesh_comes_before_home(const struct kmesh_slot *slot)
{
	if (slot->homed_at != slot->responded)
		return false;
	return bpf_ktime_get_ns() - slot->homed_ns < KMESH_READY_AFTER_NS ||
	       kmesh_is_waited_for(slot->sock);
}

/* What is put into the client's queue now comes behind all before it: the gate's, as it was read.
 */
static __always_inline bool kmesh_is_next(const struct kmesh_slot *slot)
{
	return slot->homed_at != slot->responded && kmesh_is_ready(slot);
}

#endif
