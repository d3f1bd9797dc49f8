// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the kernel cannot be looked into: one small message onto a socket with nothing outstanding
 * always fits. User space, which sees the answer, says when the socket is free again.
 */
#include "socket.h"

#define SMALL 4096

/* By the target's cookie: what it has outstanding. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKETS);
	__type(key, __u64);
	__type(value, __u64);
} outstanding SEC(".maps");

SEC("sk_msg")
int small(struct sk_msg_md *msg)
{
	struct plan *plan = plan_of(msg->sk);
	__u64 target, one = 1;

	count(COUNT_MESSAGES, 1);
	if (!plan || !plan->target)
		return pass();
	target = plan->target;
	if (msg->size > SMALL || bpf_map_update_elem(&outstanding, &target, &one, BPF_NOEXIST))
		return pass();
	return redirect(msg, plan);
}

char _license[] SEC("license") = "GPL";
