/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a response that went home is still on its way into the client's queue. Its program says
 * that it has gone (`done`) before the kernel puts it there. What a client sends in between it did
 * not send for the response, which it cannot have read: nothing that answers it may come first.
 *
 * Whoever sends through a socket of a map holds what the map keeps of it (sk_psock) from before its
 * program runs until after the redirect (tcp_bpf_sendmsg()), and nobody else does for longer than a
 * moment. So who sees the response gone, and then nobody holding it, knows that it is there.
 */
#ifndef KMESH_UNDERWAY_H
#define KMESH_UNDERWAY_H

#include <kmesh/compiler.h>
#include <kmesh/flow_control.h>
#include <kmesh/gate_types.h>
#include <kmesh/order.h>
#include <stdbool.h>

#define KMESH_HELD_BY_MAP    1
#define KMESH_HELD_BY_SENDER 2 /* by the map too, which is one */
#define KMESH_POINTER_FLAGS  7 /* in the low bits of a socket's user data */

/* Redirects by others than senders (bpf/home) can only be given time. */
#define KMESH_HOME_NS	   2000	     /* more than redirecting takes, less than any reply to it */
#define KMESH_HOME_LATE_NS 50000     /* more than it takes when it has to wait for the socket */
#define KMESH_HOME_MOST_NS 200000000 /* more than it ever takes */

/* Then others than senders hold it, another mesh's map for one: somebody would wait without end. */
#define KMESH_SENDER_MOST_NS 4000000000ull

#define KMESH_SENDER_LOOKS 128 /* some microseconds: a sender that runs is done by then */

struct sk_psock {
	struct sock *sk;
	struct {
		atomic_t refs;
	} KMESH_CORE refcnt;
} KMESH_CORE;

/* What is kept of a socket that is in a map. */
static __always_inline __u64 kmesh_psock_of(__u64 socket)
{
	struct sock *sk = (void *)(long)socket;

	return (__u64)(long)BPF_CORE_READ(sk, sk_user_data) & ~(__u64)KMESH_POINTER_FLAGS;
}

static __always_inline __u32 kmesh_holders(__u64 psock)
{
	struct sk_psock *kept = (void *)(long)psock;

	return BPF_CORE_READ(kept, refcnt.refs.counter);
}

/* Of a sender it cannot have gone; what is there in its place looks like it by chance at most. */
static __always_inline bool kmesh_is_held(__u64 psock, __u64 socket)
{
	struct sk_psock *kept = (void *)(long)psock;

	return kmesh_holders(psock) > KMESH_HELD_BY_MAP &&
	       (__u64)(long)BPF_CORE_READ(kept, sk) == socket;
}

/* Before `done` says that the response has gone; 0 for what is no sender's. */
static __always_inline void kmesh_name_sender(struct kmesh_slot *slot, __u64 psock, __u64 socket)
{
	slot->homed_by = psock;
	slot->homed_from = socket;
}

/* For who can look again later. */
static __always_inline bool kmesh_is_under_way(const struct kmesh_slot *slot)
{
	__u64 since = bpf_ktime_get_ns() - slot->homed_ns;

	if (!slot->homed_by)
		return since < KMESH_HOME_MOST_NS;
	return since < KMESH_SENDER_MOST_NS && kmesh_is_held(slot->homed_by, slot->homed_from);
}

/* Whether a sender is not done after all these looks. Not static: walked once by itself. */
__noinline int kmesh_outlasts(__u64 psock, __u64 socket)
{
	for (kmesh_counter i = 0; i < KMESH_SENDER_LOOKS; i++)
		if (!kmesh_is_held(psock, socket))
			return 0;
	return 1;
}

/* For what the client sends now, once `done` has been read. */
static __always_inline bool kmesh_comes_before_home(const struct kmesh_slot *slot)
{
	__u64 since;

	/* `done` was read first: what was written before it is read after it, and who holds the
	 * sender last. */
	kmesh_order();
	if (slot->homed_at != slot->responded)
		return false;
	since = bpf_ktime_get_ns() - slot->homed_ns;
	if (slot->homed_by)
		return since < KMESH_SENDER_MOST_NS &&
		       kmesh_outlasts(slot->homed_by, slot->homed_from);
	return since < KMESH_HOME_NS ||
	       (since < KMESH_HOME_LATE_NS && kmesh_is_waited_for(slot->sock));
}

#endif
