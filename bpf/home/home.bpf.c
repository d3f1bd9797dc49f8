// SPDX-License-Identifier: GPL-2.0-only
/*
 * Responses that go home within the kernel: from the upstream's receive queue into the client's, as
 * soon as they are there whole, in one piece. The gate hears nothing of them. Everything else is
 * passed to it: larger ones, those whose end no length tells, those to HEAD, those of clients that
 * the gate has something to do for, or that have not read what the gate sent.
 *
 * It is an object of its own: a kernel that cannot load it does without. So does one where what a
 * verdict program passes has no flow control (before 6.4), and one where FIONREAD is wrong.
 */
#include <kmesh/home.h>
#include <kmesh/stream.h>

char LICENSE[] SEC("license") = "GPL";

/*
 * Whether responses go home this way now: sockets keep their program after it has been detached
 * from their map, and must be told too. Another bit is user space's.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} home_switch SEC(".maps");

#define HOME_ON 1 /* runtime/kernel/home.py */

static __always_inline bool is_on(void)
{
	__u32 zero = 0;
	__u32 *now = bpf_map_lookup_elem(&home_switch, &zero);

	return now && *now & HOME_ON;
}

static __always_inline struct kmesh_upstream *upstream_of(struct __sk_buff *skb, __u32 *number)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u32 *id = bpf_map_lookup_elem(&upstream_ids, &cookie);
	struct kmesh_upstream *upstream;

	if (!id)
		return NULL;
	*number = *id;
	upstream = bpf_map_lookup_elem(&gate_upstreams, number);
	return upstream && upstream->cookie == cookie ? upstream : NULL;
}

/* Nothing comes twice (kmesh/stream.h); where that cannot be, the gate is told, and trusts nothing
 * of it. */
static __always_inline void keep_order(struct __sk_buff *skb, struct kmesh_upstream *upstream)
{
	__u32 number = skb->cb[0], size = skb->len;

	if (upstream->expecting && number != upstream->expects) {
		if ((__s32)(number - upstream->expects) > 0 || kmesh_cut(skb, upstream->expects))
			upstream->broken = 1;
	}
	upstream->expects = number + size;
	upstream->expecting = 1;
}

/* The gate has nothing of it to read. */
static __always_inline bool is_read(const struct kmesh_upstream *upstream, __u32 first)
{
	struct tcp_sock *tp = (void *)(long)upstream->sock;

	return BPF_CORE_READ(tp, copied_seq) == first;
}

static __always_inline __u32 whole_status(struct __sk_buff *skb)
{
	__u32 size = skb->len;

	if (size > KMESH_HOME_WHOLE)
		return 0;
	if (size > KMESH_RESPONSE_HEAD)
		size = KMESH_RESPONSE_HEAD;
	if (bpf_skb_pull_data(skb, size))
		return 0;
	return kmesh_http_whole_status((const __u8 *)(long)skb->data,
				       (const __u8 *)(long)skb->data_end, skb->len);
}

SEC("sk_skb/stream_verdict")
int kmesh_come_home(struct __sk_buff *skb)
{
	__u32 number = 0;
	struct kmesh_upstream *upstream = upstream_of(skb, &number);
	struct kmesh_slot *slot;
	__u32 status;
	__u64 client;

	if (!upstream)
		return SK_PASS;
	keep_order(skb, upstream);
	slot = kmesh_home_slot(upstream, number);
	if (!slot || !is_read(upstream, skb->cb[0]) || !is_on() || !kmesh_is_ready(slot) ||
	    bpf_map_lookup_elem(&taken_heads, &number))
		goto pass; /* the last: there is an access log */
	status = whole_status(skb);
	if (!status)
		goto pass;
	client = upstream->client;
	if (bpf_sk_redirect_hash(skb, &clients, &client, BPF_F_INGRESS) != SK_PASS)
		goto pass; /* it has just been closed */
	kmesh_gone_home(upstream, slot, status, skb->len, 0, 0);
	return SK_PASS;
pass:
	upstream->flags |= KMESH_RESPONSE_PASSED;
	return SK_PASS;
}
