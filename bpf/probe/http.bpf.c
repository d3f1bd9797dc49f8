// SPDX-License-Identifier: GPL-2.0-only
/*
 * HTTP, request by request: "GET /a..." and "GET /b..." each go to an upstream of their own, the
 * rest is passed to the gate. A head that comes in pieces is passed whole, to its last byte.
 */
#include "socket.h"

#define HEAD 8 /* bytes looked at: "GET /x" and what makes the least request */

/* The gate's port, and by the first letter of the path the upstream's cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} routes SEC(".maps");

#define GATE_PORT 0

SEC("sockops")
int enroll(struct bpf_sock_ops *ctx)
{
	__u32 key = GATE_PORT;
	__u64 *gate;

	if (ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		return 1;
	gate = bpf_map_lookup_elem(&routes, &key);
	if (gate && bpf_ntohl(ctx->remote_port) == *gate)
		enroll_established(ctx);
	return 1;
}

#define HEAD_END 0x0d0a0d0a /* "\r\n\r\n" */

/* Whether a message is the last of a head, whose end may be cut as well. */
static __always_inline int ends_a_head(struct sk_msg_md *msg, struct plan *plan)
{
	__u32 size = msg->size, seen = size < 4 ? size : 4, tail = plan->tail;
	__u8 *data;

	if (!size || bpf_msg_pull_data(msg, size - seen, size, 0))
		return 0;
	data = msg->data;
	for (int i = 0; i < 4; i++) {
		if (data + i + 1 > (__u8 *)msg->data_end)
			break;
		tail = tail << 8 | data[i];
	}
	plan->tail = tail;
	return tail == HEAD_END;
}

/* The letter after "GET /", or 0. */
static __always_inline __u32 route_of(struct sk_msg_md *msg)
{
	char *data;

	if (msg->size < HEAD || bpf_msg_pull_data(msg, 0, HEAD, 0))
		return 0;
	data = msg->data;
	if (data + HEAD > (char *)msg->data_end)
		return 0;
	if (data[0] != 'G' || data[1] != 'E' || data[2] != 'T' || data[3] != ' ' || data[4] != '/')
		return 0;
	return (__u8)data[5];
}

SEC("sk_msg")
int route(struct sk_msg_md *msg)
{
	struct plan *plan = plan_of(msg->sk);
	__u64 *upstream;
	__u32 letter;
	int whole;

	count(COUNT_MESSAGES, 1);
	if (!plan)
		return pass();
	whole = ends_a_head(msg, plan);
	if (plan->held || !whole) {
		plan->held = !whole;
		return pass();
	}
	letter = route_of(msg);
	upstream = letter ? bpf_map_lookup_elem(&routes, &letter) : 0;
	if (!upstream)
		return pass();
	plan->target = *upstream;
	bpf_map_update_elem(&bindings, &plan->target, &plan->self, BPF_ANY);
	return redirect(msg, plan);
}

SEC("sk_skb/stream_verdict")
int respond(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u64 *client = bpf_map_lookup_elem(&bindings, &cookie);

	if (!skb->len) /* the upstream's end of stream, see redirect.bpf.c */
		return SK_PASS;
	if (!client)
		return SK_DROP;
	count(COUNT_RETURNED, 1);
	return bpf_sk_redirect_hash(skb, &enrolled, client, BPF_F_INGRESS);
}

SEC("sk_skb/stream_verdict")
int noop(struct __sk_buff *skb)
{
	return SK_PASS;
}

char _license[] SEC("license") = "GPL";
