// SPDX-License-Identifier: GPL-2.0-only
/*
 * A connection that goes to a waypoint introduces itself: in front of the first bytes that the
 * application sends stands a PROXY protocol v2 header with where it comes from, where it was going
 * and who it is, so that an unmodified proxy serves as waypoint.
 * https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2
 *
 * The socket is in a socket map until its header has been acknowledged, and an ordinary one again
 * from then on: the application's later calls cost nothing, and FIONREAD, splice and epoll are the
 * kernel's own.
 */
#include <kmesh/service.h>

char LICENSE[] SEC("license") = "GPL";

#define PROXY_COMMAND 0x21 /* version 2, PROXY */
#define PROXY_TCP4    0x11
#define PROXY_TCP6    0x21

struct signature {
	__be32 words[3];
	__u8 command;
	__u8 family;
	__be16 length;
} __attribute__((packed));

struct header4 {
	struct signature start;
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
} __attribute__((packed));

struct header6 {
	struct signature start;
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
} __attribute__((packed));

static __always_inline void sign(struct signature *start, __u8 family, __u16 length)
{
	/* "\r\n\r\n\0\r\nQUIT\n", as numbers: a text would be a nameless constant in .rodata,
	 * and 5.10 refuses the BTF of a section in which no variable has a name. */
	start->words[0] = bpf_htonl(0x0d0a0d0a);
	start->words[1] = bpf_htonl(0x000d0a51);
	start->words[2] = bpf_htonl(0x5549540a);
	start->command = PROXY_COMMAND;
	start->family = family;
	start->length = bpf_htons(length);
}

/* Room for `size` bytes in front of the message. */
static __always_inline void *make_room(struct sk_msg_md *msg, __u32 size)
{
	if (bpf_msg_push_data(msg, 0, size, 0) || bpf_msg_pull_data(msg, 0, size, 0))
		return NULL;
	return msg->data + size > msg->data_end ? NULL : msg->data;
}

static __always_inline int introduce4(struct sk_msg_md *msg, const struct kmesh_peer *peer,
				      const struct kmesh_source_tlvs *identity)
{
	__u32 tlvs = identity ? sizeof(*identity) : 0;
	struct header4 header = {
		.source = msg->local_ip4,
		.destination = peer->service[3],
		.source_port = bpf_htons((__u16)msg->local_port),
		.destination_port = peer->service_port,
	};
	void *room;

	sign(&header.start, PROXY_TCP4, sizeof(header) - sizeof(header.start) + tlvs);
	room = identity ? make_room(msg, sizeof(header) + sizeof(*identity))
			: make_room(msg, sizeof(header));
	if (!room)
		return -1;
	if (room + sizeof(header) > msg->data_end)
		return -1;
	__builtin_memcpy(room, &header, sizeof(header));
	if (!identity)
		return 0;
	if (room + sizeof(header) + sizeof(*identity) > msg->data_end)
		return -1;
	__builtin_memcpy(room + sizeof(header), identity, sizeof(*identity));
	return 0;
}

static __always_inline int introduce6(struct sk_msg_md *msg, const struct kmesh_peer *peer,
				      const struct kmesh_source_tlvs *identity)
{
	__u32 tlvs = identity ? sizeof(*identity) : 0;
	struct header6 header = {
		.source_port = bpf_htons((__u16)msg->local_port),
		.destination_port = peer->service_port,
	};
	void *room;

	header.source[0] = msg->local_ip6[0];
	header.source[1] = msg->local_ip6[1];
	header.source[2] = msg->local_ip6[2];
	header.source[3] = msg->local_ip6[3];
	__builtin_memcpy(header.destination, peer->service, sizeof(header.destination));
	sign(&header.start, PROXY_TCP6, sizeof(header) - sizeof(header.start) + tlvs);
	room = identity ? make_room(msg, sizeof(header) + sizeof(*identity))
			: make_room(msg, sizeof(header));
	if (!room)
		return -1;
	if (room + sizeof(header) > msg->data_end)
		return -1;
	__builtin_memcpy(room, &header, sizeof(header));
	if (!identity)
		return 0;
	if (room + sizeof(header) + sizeof(*identity) > msg->data_end)
		return -1;
	__builtin_memcpy(room + sizeof(header), identity, sizeof(*identity));
	return 0;
}

static __always_inline const struct kmesh_source_tlvs *identity_of(struct sk_msg_md *msg,
								   bool mapped)
{
	struct kmesh_source_key key = {};

	if (mapped) {
		kmesh_map_ip4(key.address, msg->local_ip4);
	} else {
		key.address[0] = msg->local_ip6[0];
		key.address[1] = msg->local_ip6[1];
		key.address[2] = msg->local_ip6[2];
		key.address[3] = msg->local_ip6[3];
	}
	return bpf_map_lookup_elem(&source_tlvs, &key);
}

/* msg->sk and socket storage in sk_msg: since 5.8, e0b68fb186b2 and f7c6cb1d9728. */
SEC("sk_msg")
int kmesh_introduce(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct kmesh_peer *peer = sk ? bpf_sk_storage_get(&peers, sk, 0, 0) : NULL;
	int result;

	if (!peer || peer->flags != KMESH_PEER_WAYPOINT)
		return SK_PASS;
	if (kmesh_is_mapped(peer->service))
		result = introduce4(msg, peer, identity_of(msg, true));
	else
		result = introduce6(msg, peer, identity_of(msg, false));
	if (result)
		return SK_DROP; /* send() says EACCES: better than a connection that nobody knows */
	peer->flags |= KMESH_PEER_INTRODUCED;
	return SK_PASS;
}

/* Anything but that it is there already, by a program of a cgroup below. */
#define IS_THERE (-17) /* EEXIST */

static __always_inline void established(struct bpf_sock_ops *ctx, const struct kmesh_peer *peer)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	const __u32 only = 0;
	__u64 *full, now;
	int result;

	kmesh_unbar(peer->endpoint, peer->endpoint_port);
	bpf_sock_ops_cb_flags_set(ctx, (ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG) &
					       ~BPF_SOCK_OPS_RTO_CB_FLAG);
	result = bpf_sock_hash_update(ctx, &introductions, &cookie, BPF_NOEXIST);
	if (!result || result == IS_THERE)
		return;
	/* The waypoint will not take it without a header. Those to come are refused at once. */
	kmesh_count_waypoint(KMESH_UNINTRODUCED);
	full = bpf_map_lookup_elem(&introductions_full, &only);
	now = bpf_ktime_get_ns();
	if (full)
		*full = now;
}

static __always_inline void unreached(const struct kmesh_peer *peer)
{
	kmesh_count_waypoint(KMESH_UNREACHED);
	kmesh_bar(peer->endpoint, peer->endpoint_port);
}

/* Asked before anything is looked up: others have callbacks on sockets that are none of ours. */
static __always_inline bool concerns_waypoints(const struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_STATE_CB:
		return ctx->args[0] == BPF_TCP_SYN_SENT && ctx->args[1] == BPF_TCP_CLOSE;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_RTO_CB:
	case BPF_SOCK_OPS_RTT_CB:
		return true;
	}
	return false;
}

static __always_inline int follow(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_peer *peer;
	__u64 cookie;

	if (!concerns_waypoints(ctx))
		return 1;
	peer = sk ? bpf_sk_storage_get(&peers, sk, 0, 0) : NULL;
	if (!peer || !(peer->flags & KMESH_PEER_WAYPOINT))
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags |
						       BPF_SOCK_OPS_STATE_CB_FLAG |
						       BPF_SOCK_OPS_RTO_CB_FLAG);
		break;
	case BPF_SOCK_OPS_RTO_CB: /* nobody answers: the application need not wait in vain first */
		if (ctx->state == BPF_TCP_SYN_SENT)
			unreached(peer);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		unreached(peer);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		established(ctx, peer);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		if (!(peer->flags & KMESH_PEER_INTRODUCED))
			break;
		cookie = bpf_get_socket_cookie(ctx);
		bpf_map_delete_elem(&introductions, &cookie);
		bpf_sock_ops_cb_flags_set(ctx,
					  ctx->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_RTT_CB_FLAG);
		break;
	}
	return 1;
}

SEC("sockops")
int kmesh_waypoint(struct bpf_sock_ops *ctx)
{
	return follow(ctx);
}

/* The same for the root cgroup: only a socket that was managed when it connected has a peer. */
SEC("sockops")
int kmesh_waypoint_netns(struct bpf_sock_ops *ctx)
{
	return follow(ctx);
}
