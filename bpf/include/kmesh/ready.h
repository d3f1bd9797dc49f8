/* SPDX-License-Identifier: GPL-2.0-only */
/* Whether a client takes a response that is redirected to it, past the gate. */
#ifndef KMESH_READY_H
#define KMESH_READY_H

#include <kmesh/flow_control.h>
#include <kmesh/gate_types.h>
#include <stdbool.h>

#define KMESH_HOME_NS	   2000	 /* more than redirecting takes, less than any reply to it */
#define KMESH_HOME_LATE_NS 50000 /* more than it takes when it has to wait for the socket */

/*
 * It has read all that it was sent, by either way, and takes what is redirected to it. What waits
 * in its queue costs far more memory than the bytes that are counted: so nothing may.
 */
static __always_inline bool kmesh_is_ready(const struct kmesh_slot *slot)
{
	struct tcp_sock *tp = (void *)(long)slot->sock;
	struct sock *sk = (void *)(long)slot->sock;

	return BPF_CORE_READ(tp, copied_seq) - slot->first_received == slot->responded &&
	       BPF_CORE_READ(sk, __sk_common.skc_state) == BPF_TCP_ESTABLISHED &&
	       kmesh_never_blocks(slot->sock) && !kmesh_waits_for_more(slot->sock) &&
	       !kmesh_has_layer(slot->sock) && !kmesh_waiting(slot->sock);
}

/*
 * A response that goes home is in the client's queue only a moment after its program has said so.
 * What a client sends in that moment it did not send for the response, which it would not have read
 * yet: nothing that answers it may come first.
 */
static __always_inline bool kmesh_comes_before_home(const struct kmesh_slot *slot)
{
	__u64 since;

	if (slot->homed_at != slot->responded)
		return false;
	since = bpf_ktime_get_ns() - slot->homed_ns;
	return since < KMESH_HOME_NS ||
	       (since < KMESH_HOME_LATE_NS && kmesh_is_waited_for(slot->sock));
}

/* What is put into the client's queue now comes behind all before it: the gate's, as it was read.
 */
static __always_inline bool kmesh_is_next(const struct kmesh_slot *slot)
{
	return slot->homed_at != slot->responded && kmesh_is_ready(slot);
}

#endif
