// SPDX-License-Identifier: GPL-2.0-only
/*
 * What bpf/home/home.bpf.c relies on, in small: segments come in the order of the stream and say
 * where they belong, some go into another socket's receive queue, and the rest is passed.
 */
#include "socket.h"

#define FOR_GATE 'G' /* what begins with it is passed */

struct stream {
	__u32 expects; /* the number of the next byte */
	__u32 began;
	__u32 broken; /* segments that did not begin there; from then on all is passed */
	__u32 passed; /* bytes */
};

/* By the cookie of the target. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKETS);
	__type(key, __u64);
	__type(value, struct stream);
} streams SEC(".maps");

/* Clients have a message program too. */
SEC("sk_msg")
int forward(struct sk_msg_md *msg)
{
	return pass();
}

SEC("sk_skb/stream_verdict")
int noop(struct __sk_buff *skb)
{
	return SK_PASS;
}

/* Its first byte says who is to have a segment; tcp_skb_cb begins with its number. */
static __always_inline int goes_home(struct __sk_buff *skb, struct stream *stream)
{
	__u32 number = skb->cb[0];
	const __u8 *data;

	if (stream->began && number != stream->expects)
		stream->broken += 1;
	stream->began = 1;
	stream->expects = number + skb->len;
	if (!skb->len || stream->broken || bpf_skb_pull_data(skb, 1))
		return 0;
	data = (const __u8 *)(long)skb->data;
	return data + 1 <= (const __u8 *)(long)skb->data_end && *data != FOR_GATE;
}

SEC("sk_skb/stream_verdict")
int come_home_in_order(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u64 *home = bpf_map_lookup_elem(&bindings, &cookie);
	struct stream *stream = bpf_map_lookup_elem(&streams, &cookie);

	if (!home || !stream)
		return SK_PASS;
	if (!goes_home(skb, stream)) {
		stream->passed += skb->len;
		return SK_PASS;
	}
	count(COUNT_RETURNED, 1);
	return bpf_sk_redirect_hash(skb, &enrolled, home, BPF_F_INGRESS);
}

char _license[] SEC("license") = "GPL";
