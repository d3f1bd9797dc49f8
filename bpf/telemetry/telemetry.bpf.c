// SPDX-License-Identifier: GPL-2.0-only
/*
 * Telemetry: what connections of managed sockets came to. Programs run when a connection is opened,
 * changes its state and ends, never for a packet: TCP itself counts what passes.
 *
 * Whoever reads the ring buffer may be slow or gone: then events are lost, and counted.
 */
#include <kmesh/optional.h>
#include <kmesh/telemetry.h>
#include <kmesh/kernel_socket.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

#define AF_INET6  10
#define SOCK_DONE 1 /* enum sock_flags (net/sock.h): the peer's FIN has been counted as a byte */

/* The reader is woken once when this share of the buffer is waiting, and else looks by itself. */
#define WAKE_SHIFT 3

#define CORE __attribute__((preserve_access_index))

struct sock_common {
	unsigned long skc_flags;
} CORE;

struct sock {
	struct sock_common __sk_common;
} CORE;

struct inet_sock {
	struct sock sk;
} CORE;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} CORE;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_sent;
	__u64 bytes_retrans;
	__u32 lost;
} CORE;

static __always_inline void count_lost(void)
{
	const __u32 only = 0;
	__u64 *count = bpf_map_lookup_elem(&lost, &only);

	/* A softirq may come in between on this processor. */
	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Volatile, as a context may only be read at constant offsets: clang would merge the branches. */
static __always_inline void copy_local(const volatile struct bpf_sock_ops *ctx, __be32 *to)
{
	if (ctx->family != AF_INET6) {
		kmesh_map_ip4(to, ctx->local_ip4);
		return;
	}
	to[0] = ctx->local_ip6[0];
	to[1] = ctx->local_ip6[1];
	to[2] = ctx->local_ip6[2];
	to[3] = ctx->local_ip6[3];
}

static __always_inline void copy_remote(const volatile struct bpf_sock_ops *ctx, __be32 *to)
{
	if (ctx->family != AF_INET6) {
		kmesh_map_ip4(to, ctx->remote_ip4);
		return;
	}
	to[0] = ctx->remote_ip6[0];
	to[1] = ctx->remote_ip6[1];
	to[2] = ctx->remote_ip6[2];
	to[3] = ctx->remote_ip6[3];
}

static __always_inline void copy_ends(const volatile struct bpf_sock_ops *ctx, bool outbound,
				      struct kmesh_tcp_event *event)
{
	__be16 local_port = bpf_htons((__u16)ctx->local_port);
	__be16 remote_port = bpf_htons((__u16)bpf_ntohl(ctx->remote_port));

	if (outbound) {
		copy_local(ctx, event->flow.source);
		copy_remote(ctx, event->flow.destination);
		event->source_port = local_port;
		event->flow.destination_port = remote_port;
	} else {
		copy_remote(ctx, event->flow.source);
		copy_local(ctx, event->flow.destination);
		event->source_port = remote_port;
		event->flow.destination_port = local_port;
	}
}

static __always_inline void copy_service(struct bpf_sock *sk, struct kmesh_tcp_flow *flow)
{
	struct kmesh_peer *peer = bpf_sk_storage_get(&peers, sk, NULL, 0);

	if (peer) {
		kmesh_copy_address(flow->service, peer->service);
		flow->service_port = peer->service_port;
		return;
	}
	flow->service[0] = 0;
	flow->service[1] = 0;
	flow->service[2] = 0;
	flow->service[3] = 0;
	flow->service_port = 0;
}

static __always_inline void measure(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
				    struct kmesh_tcp_event *event)
{
	struct tcp_sock *tcp = (void *)(long)kmesh_kernel_socket(sk);
	__u64 flags = BPF_CORE_READ(tcp, inet_conn.icsk_inet.sk.__sk_common.skc_flags);
	__u64 fin = flags >> SOCK_DONE & 1;

	event->sent = BPF_CORE_READ(tcp, bytes_sent) - BPF_CORE_READ(tcp, bytes_retrans);
	event->lost = BPF_CORE_READ(tcp, lost);
	event->received = ctx->bytes_received - fin;
	event->smoothed_rtt_us = ctx->srtt_us >> 3;
	event->min_rtt_us = ctx->rtt_min == ~0U ? 0 : ctx->rtt_min;
	event->retransmissions = ctx->total_retrans;
}

static __always_inline __u64 wake_flags(void)
{
	__u64 room = bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) >> WAKE_SHIFT;
	__u64 waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);

	/* Several processors may pass the mark at once; further on the reader is awake anyway. */
	if (waiting >= room && waiting < room + 16 * sizeof(struct kmesh_tcp_event))
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __always_inline void tell(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
				 const struct kmesh_following *known, __u8 kind, __u8 state)
{
	struct kmesh_tcp_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count_lost();
		return;
	}
	copy_ends(ctx, known->direction == KMESH_OUTBOUND, event);
	copy_service(sk, &event->flow);
	event->flow.direction = known->direction;
	__builtin_memset(event->flow.pad, 0, sizeof(event->flow.pad));
	event->kind = kind;
	event->state = state;
	event->pad = 0;
	event->started_ns = known->started_ns;
	event->now_ns = bpf_ktime_get_ns();
	measure(ctx, sk, event);
	bpf_ringbuf_submit(event, wake_flags());
}

/* What is followed already is so by a program of a cgroup below: it is told of once. */
static __always_inline struct kmesh_following *follow(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
						      __u8 direction)
{
	struct kmesh_following *known, fresh = {
					       .started_ns = bpf_ktime_get_ns(),
					       .direction = direction,
				       };

	if (bpf_sk_storage_get(&following, sk, NULL, 0))
		return NULL;
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	known = bpf_sk_storage_get(&following, sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
	if (!known)
		count_lost();
	return known;
}

static __always_inline void established(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
					struct kmesh_following *known)
{
	if (!known || known->established)
		return;
	known->established = 1;
	tell(ctx, sk, known, KMESH_OPENED, BPF_TCP_ESTABLISHED);
}

static __always_inline void ended(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct kmesh_following *known = bpf_sk_storage_get(&following, sk, NULL, 0);
	__u8 kind;

	if (!known)
		return;
	kind = known->established ? KMESH_CLOSED : KMESH_FAILED;
	tell(ctx, sk, known, kind, BPF_TCP_CLOSE);
	/* A socket may connect again. */
	bpf_sk_storage_delete(&following, sk);
}

static __always_inline int observe(struct bpf_sock_ops *ctx, bool managed)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		if (managed)
			follow(ctx, sk, KMESH_OUTBOUND);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		established(ctx, sk, bpf_sk_storage_get(&following, sk, NULL, 0));
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		if (managed)
			established(ctx, sk, follow(ctx, sk, KMESH_INBOUND));
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			ended(ctx, sk);
		break;
	}
	return 1;
}

SEC("sockops")
int kmesh_telemetry(struct bpf_sock_ops *ctx)
{
	return observe(ctx, true);
}

/*
 * The same for the root cgroup, where the network namespace tells who is managed.
 * bpf_get_netns_cookie() in sockops programs: since 5.15, 6cf1770d63dd; loaded only where it is.
 */
KMESH_OPTIONAL_PROGRAM(kmesh_telemetry_netns);

SEC("sockops")
int kmesh_telemetry_netns(struct bpf_sock_ops *ctx)
{
	struct kmesh_netns_key key = {};
	bool managed = false;

	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB ||
	    ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		key.cookie = bpf_get_netns_cookie(ctx);
		managed = bpf_map_lookup_elem(&managed_netns, &key) != NULL;
	}
	return observe(ctx, managed);
}
