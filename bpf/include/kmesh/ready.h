/* SPDX-License-Identifier: GPL-2.0-only */
/* Whether a client takes a response that is redirected to it, past the gate. */
#ifndef KMESH_READY_H
#define KMESH_READY_H

#include <kmesh/flow_control.h>
#include <kmesh/gate_types.h>
#include <stdbool.h>

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

/* What is put into the client's queue now comes behind all before it: the gate's, as it was read.
 */
static __always_inline bool kmesh_is_next(const struct kmesh_slot *slot)
{
	return slot->homed_at != slot->responded && kmesh_is_ready(slot);
}

#endif
