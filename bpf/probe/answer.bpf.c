// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the enhanced path does to messages besides redirecting them: it makes a request into an
 * answer on its way, and could collect the pieces of a head.
 */
#include "socket.h"

#define ANSWER	0x30 /* '0': the byte that an answer is made of */
#define SIZE	64   /* bytes of an answer, whatever the size of the request */
#define COLLECT 100  /* bytes that are collected before a message is looked at */

/* The request goes, the answer takes its place, and turns back to where it came from. */
SEC("sk_msg")
int answer(struct sk_msg_md *msg)
{
	struct plan *plan = plan_of(msg->sk);
	__u32 size = msg->size;
	__u8 *data;

	count(COUNT_MESSAGES, 1);
	if (!plan || !plan->target)
		return pass();
	if (bpf_msg_push_data(msg, 0, SIZE, 0) || bpf_msg_pop_data(msg, SIZE, size, 0) ||
	    bpf_msg_pull_data(msg, 0, SIZE, 0))
		return SK_DROP;
	data = msg->data;
	if (data + SIZE > (__u8 *)msg->data_end)
		return SK_DROP;
	__builtin_memset(data, ANSWER, SIZE);
	count(COUNT_RETURNED, 1);
	return bpf_msg_redirect_hash(msg, &enrolled, &plan->self, BPF_F_INGRESS);
}

SEC("sk_msg")
int collect(struct sk_msg_md *msg)
{
	if (msg->size < COLLECT) {
		bpf_msg_cork_bytes(msg, COLLECT);
		return SK_PASS;
	}
	count(COUNT_MESSAGES, 1);
	return pass();
}

/* The remedy for FIONREAD, see redirect.bpf.c. */
SEC("sk_skb/stream_verdict")
int noop(struct __sk_buff *skb)
{
	return SK_PASS;
}

char _license[] SEC("license") = "GPL";
