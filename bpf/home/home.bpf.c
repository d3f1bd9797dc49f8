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
#include <kmesh/client.h>
#include <kmesh/flow_control.h>
#include <kmesh/http/response_table.h>
#include <kmesh/stat.h>
#include <kmesh/stream.h>

char LICENSE[] SEC("license") = "GPL";

#define HEAD_MAX  1024 /* a longer head goes by the gate */
#define WHOLE_MAX 65536
#define WAITING	  (256 * 1024)

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

/* The slot of the client whose request it has, if the kernel may do without the gate. */
static __always_inline struct kmesh_slot *slot_of(const struct kmesh_upstream *upstream,
						  __u32 number, __u32 first)
{
	struct kmesh_slot *slot;

	struct tcp_sock *tp = (void *)(long)upstream->sock;

	if (!(upstream->flags & KMESH_REQUEST_HELD) || upstream->recalled || upstream->broken ||
	    upstream->flags & (KMESH_REQUEST_HEAD | KMESH_RESPONSE_PASSED))
		return NULL;
	if (BPF_CORE_READ(tp, copied_seq) != first)
		return NULL; /* the gate has something of it to read */
	slot = bpf_map_lookup_elem(&gate_slots, &upstream->slot);
	if (!slot || slot->cookie != upstream->client || slot->upstream != number)
		return NULL;
	if (slot->taken == slot->done || !slot->open || slot->by_gate)
		return NULL;
	return slot;
}

/* A whole response with nothing after it: its status, else 0. */
static __always_inline __u32 whole_status(struct __sk_buff *skb)
{
	__u32 size = skb->len, state = KMESH_RESPONSE_START, length = 0, head = 0;
	const __u8 *data, *end;

	if (size > WHOLE_MAX)
		return 0;
	if (size > HEAD_MAX)
		size = HEAD_MAX;
	if (bpf_skb_pull_data(skb, size))
		return 0;
	data = (const __u8 *)(long)skb->data;
	end = (const __u8 *)(long)skb->data_end;
	for (kmesh_counter i = 0; i < HEAD_MAX; i++) {
		__u32 entry, is_digit;

		if (data + i + 1 > end)
			break;
		entry = kmesh_response_table[(state << 8 | data[i]) & (KMESH_RESPONSE_CELLS - 1)];
		is_digit = entry >> 8 & 1;
		length = length * (1 + 9 * is_digit) + (data[i] & 15) * is_digit;
		state = entry & 255;
		head = i + 1;
		if (state < KMESH_RESPONSE_START)
			break;
	}
	if (state != KMESH_RESPONSE_END || head + length != skb->len || data + 12 > end)
		return 0;
	return (data[9] & 15) * 100 + (data[10] & 15) * 10 + (data[11] & 15);
}

/* It has read all that the gate sent, takes what is redirected to it, and reads. */
static __always_inline bool is_ready(const struct kmesh_slot *slot)
{
	struct tcp_sock *tp = (void *)(long)slot->sock;
	struct sock *sk = (void *)(long)slot->sock;

	return BPF_CORE_READ(tp, copied_seq) - slot->first_received == slot->responded &&
	       BPF_CORE_READ(sk, __sk_common.skc_state) == BPF_TCP_ESTABLISHED &&
	       kmesh_never_blocks(slot->sock) && !kmesh_waits_for_more(slot->sock) &&
	       !kmesh_has_layer(slot->sock) && kmesh_waiting(slot->sock) < WAITING;
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
	slot = slot_of(upstream, number, skb->cb[0]);
	if (!slot || !is_on() || !is_ready(slot) || bpf_map_lookup_elem(&taken_heads, &number))
		goto pass; /* the last: there is an access log */
	status = whole_status(skb);
	if (!status)
		goto pass;
	client = upstream->client;
	if (bpf_sk_redirect_hash(skb, &clients, &client, BPF_F_INGRESS) != SK_PASS)
		goto pass; /* it has just been closed */
	kmesh_count_response(upstream, status, skb->len);
	asm volatile("" ::: "memory");
	slot->done += 1;
	kmesh_count(KMESH_WENT_HOME);
	return SK_PASS;
pass:
	upstream->flags |= KMESH_RESPONSE_PASSED;
	return SK_PASS;
}
