// SPDX-License-Identifier: GPL-2.0-only
/* Sockets are enrolled as their connections are made, and carry what the programs need to know. */
#include "socket.h"

SEC("sockops")
int enroll(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		enroll_established(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			count(COUNT_CLOSED, 1);
		break;
	}
	return 1;
}

/* Tell user space which cookie the socket that sends carries: COUNT_RETURNED adds it up. */
SEC("sk_msg")
int recall(struct sk_msg_md *msg)
{
	struct plan *plan = plan_of(msg->sk);

	count(COUNT_MESSAGES, 1);
	if (plan)
		count(COUNT_RETURNED, plan->self);
	return SK_PASS;
}

char _license[] SEC("license") = "GPL";
