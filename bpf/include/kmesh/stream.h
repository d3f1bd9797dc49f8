/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Each byte of a stream once. What a verdict program gets is not cut to where the stream is: of a
 * segment that comes with bytes before it once more, they are there once more (tcp_read_skb() and
 * what was before it take whole buffers). TCP itself makes such segments on a loopback, of a
 * segment sent twice and the next one, while they wait for a socket that is in use
 * (tcp_add_backlog()).
 *
 * skb->cb begins with tcp_skb_cb: the number of the first byte and of the one after the last.
 */
#ifndef KMESH_STREAM_H
#define KMESH_STREAM_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define KMESH_STREAMS	  65536
#define KMESH_CUT_AT_ONCE 4095 /* the most that sk_skb's bpf_skb_adjust_room() takes */
#define KMESH_CUTS	  160  /* of which there are as many as the largest buffer can need */

struct kmesh_stream {
	__u32 next;	 /* the number of the byte that comes next */
	__u32 is_broken; /* bytes of it could not be put right: nothing more of it is passed */
};

/* By the reader's cookie. One that is forgotten begins anew where it is. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, KMESH_STREAMS);
	__type(key, __u64);
	__type(value, struct kmesh_stream);
} streams SEC(".maps");

/* Where the kernel keeps something else there (5.10), nothing is known of a segment. */
static __always_inline int kmesh_is_numbered(const struct __sk_buff *skb)
{
	return skb->cb[1] - skb->cb[0] - skb->len <= 1; /* an end of stream has a number */
}

/* Cut off what is before the byte that comes next. The rest first: the loop is cheap to verify. */
static __always_inline int kmesh_cut(struct __sk_buff *skb, __u32 next)
{
	__u32 again = next - skb->cb[0], steps;

	if (!kmesh_is_numbered(skb) || (__s32)again <= 0)
		return 0;
	if (again > skb->len)
		again = skb->len;
	steps = again / KMESH_CUT_AT_ONCE;
	if (steps > KMESH_CUTS ||
	    bpf_skb_adjust_room(skb, -(__s32)(again % KMESH_CUT_AT_ONCE), 0, 0))
		return -1;
	for (__u32 i = 0; i < KMESH_CUTS && i < steps; i++)
		if (bpf_skb_adjust_room(skb, -KMESH_CUT_AT_ONCE, 0, 0))
			return -1;
	return 0;
}

/*
 * Pass what has not been passed. A reader may wait, or see an end that comes too early, which all
 * protocols know; it never gets a byte twice.
 */
static __always_inline int kmesh_pass_once(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct kmesh_stream *stream = bpf_map_lookup_elem(&streams, &cookie), fresh = {};
	__u32 next = skb->cb[0] + skb->len;

	if (!stream) {
		fresh.next = next;
		bpf_map_update_elem(&streams, &cookie, &fresh, BPF_ANY);
		return SK_PASS;
	}
	if (stream->is_broken || kmesh_cut(skb, stream->next)) {
		stream->is_broken = 1;
		return skb->len ? SK_DROP : SK_PASS;
	}
	stream->next = next;
	return SK_PASS;
}

#endif
