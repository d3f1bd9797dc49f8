// SPDX-License-Identifier: GPL-2.0-only
/*
 * The primitives of the socket paths, one by one: what an enrolled socket sends goes out of another
 * socket (egress) or into another's receive queue (ingress), and an answer comes home by itself.
 */
#include "socket.h"

SEC("sk_msg")
int forward(struct sk_msg_md *msg)
{
	struct plan *plan = plan_of(msg->sk);

	count(COUNT_MESSAGES, 1);
	if (!plan || !plan->target)
		return pass();
	return redirect(msg, plan);
}

/* The remedy for FIONREAD: with any verdict program the kernel counts what it hands over. */
SEC("sk_skb/stream_verdict")
int noop(struct __sk_buff *skb)
{
	return SK_PASS;
}

/* What reaches a target goes into the receive queue of the socket that it is bound to. */
SEC("sk_skb/stream_verdict")
int come_home(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u64 *home = bpf_map_lookup_elem(&bindings, &cookie);

	/*
	 * An end of stream comes as an skb with no data. It is the upstream's, not the client's:
	 * recv() there would say EFAULT, or see an end that is none.
	 */
	if (!home || !skb->len)
		return SK_PASS;
	count(COUNT_RETURNED, 1);
	return bpf_sk_redirect_hash(skb, &enrolled, home, BPF_F_INGRESS);
}

char _license[] SEC("license") = "GPL";
