// SPDX-License-Identifier: GPL-2.0-only
/*
 * Same-node acceleration: what one managed workload sends to another on this node goes straight
 * into the other's receive queue, past TCP, as long as the reader keeps up.
 *
 * Who is whose peer? Addresses do not tell: two network namespaces may use the same ones, and an
 * address may be another node's. So both ends are recognised by their connection's addresses and
 * both initial sequence numbers, which the two sockets of one connection share and no others:
 *
 *   server   HDR_OPT_LEN            announces the SYN that it is about to answer
 *   client   ACTIVE_ESTABLISHED     finds its SYN announced: enrols, and leaves its card
 *   server   PASSIVE_ESTABLISHED    finds the card of its very peer: enrols, leaves its own
 *
 * A connection that leaves the node, comes from outside or has an unmanaged end is never enrolled,
 * nor is one whose ends block (flow_control.h).
 */
#include <kmesh/accelerate.h>
#include <kmesh/flow_control.h>
#include <kmesh/kernel_socket.h>
#include <kmesh/optional.h>
#include <kmesh/stream.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		*value += 1;
}

static __always_inline const struct kmesh_accelerate_settings *settings_in_force(void)
{
	const __u32 only = 0;
	const struct kmesh_accelerate_settings *found = bpf_map_lookup_elem(&settings, &only);

	return found && found->enabled ? found : NULL;
}

/* Volatile, as a context may only be read at constant offsets and clang would merge the branches.
 */
static __always_inline void copy_addresses(const volatile struct bpf_sock_ops *ctx, __be32 *local,
					   __be32 *remote)
{
	if (ctx->family == KMESH_AF_INET6) {
		local[0] = ctx->local_ip6[0];
		local[1] = ctx->local_ip6[1];
		local[2] = ctx->local_ip6[2];
		local[3] = ctx->local_ip6[3];
		remote[0] = ctx->remote_ip6[0];
		remote[1] = ctx->remote_ip6[1];
		remote[2] = ctx->remote_ip6[2];
		remote[3] = ctx->remote_ip6[3];
		return;
	}
	kmesh_map_ip4(local, ctx->local_ip4);
	kmesh_map_ip4(remote, ctx->remote_ip4);
}

static __always_inline void as_client(struct bpf_sock_ops *ctx, struct kmesh_connection *key)
{
	copy_addresses(ctx, key->client, key->server);
	key->client_port = ctx->local_port;
	key->server_port = bpf_ntohl(ctx->remote_port);
}

static __always_inline void as_server(struct bpf_sock_ops *ctx, struct kmesh_connection *key)
{
	copy_addresses(ctx, key->server, key->client);
	key->server_port = ctx->local_port;
	key->client_port = bpf_ntohl(ctx->remote_port);
}

/*
 * Only a socket that listens from now on announces: its flag is inherited by what it accepts. A
 * server that may block in accept() will block in recv() too: it is left alone.
 */
static __always_inline void listen(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return;
	if (kmesh_never_blocks(kmesh_kernel_socket(sk)))
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags |
						       BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	else
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | KMESH_BLOCKS);
}

/* What a listener's sockets inherit is for the listener. */
static __always_inline void stop_announcing(struct bpf_sock_ops *ctx)
{
	if (ctx->bpf_sock_ops_cb_flags & KMESH_BLOCKS)
		count(KMESH_SERVER_BLOCKS);
	bpf_sock_ops_cb_flags_set(ctx,
				  ctx->bpf_sock_ops_cb_flags &
					  ~(BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | KMESH_BLOCKS));
}

/* A SYN with cookies has no request to announce; it stays with TCP. */
static __always_inline void announce(struct bpf_sock_ops *ctx)
{
	struct kmesh_connection key = {};
	struct tcphdr syn = {};
	const __u8 there = 1;

	if (ctx->args[0])
		return;
	/* ENOSPC says that there is more than the fixed part of the header. */
	if (bpf_getsockopt(ctx, IPPROTO_TCP, TCP_BPF_SYN, &syn, sizeof(syn)) < 0 && !syn.seq)
		return;
	as_server(ctx, &key);
	key.client_isn = bpf_ntohl(syn.seq);
	bpf_map_update_elem(&announced, &key, &there, BPF_ANY);
}

static __always_inline struct kmesh_end *enrol(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_end *end;

	/* Managed by its cgroup and by its namespace: the programs run twice. */
	if (!sk || bpf_sk_storage_get(&ends, sk, NULL, 0))
		return NULL;
	end = bpf_sk_storage_get(&ends, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!end)
		return NULL;
	end->self.cookie = bpf_get_socket_cookie(ctx);
	end->self.sock = kmesh_kernel_socket(sk);
	/* What was sent before the two knew of each other went over TCP: that comes first. */
	end->over_tcp = 1;
	if (bpf_sock_ops_cb_flags_set(
		    ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG |
				 BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG) ||
	    bpf_sock_hash_update(ctx, &sockets, &end->self.cookie, BPF_NOEXIST)) {
		bpf_sk_storage_delete(&ends, sk);
		return NULL;
	}
	return end;
}

static __always_inline int goes_to_a_waypoint(struct bpf_sock *sk)
{
	struct kmesh_peer *peer = bpf_sk_storage_get(&peers, sk, NULL, 0);

	return peer && peer->flags & KMESH_PEER_WAYPOINT;
}

static __always_inline void connected(struct bpf_sock_ops *ctx)
{
	struct kmesh_connection key = {};
	struct kmesh_meeting meeting = {};
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_end *end;

	as_client(ctx, &key);
	key.client_isn = ctx->snd_una - 1;
	if (!sk || !bpf_map_lookup_elem(&announced, &key))
		return;
	bpf_map_delete_elem(&announced, &key);
	if (goes_to_a_waypoint(sk))
		return;
	if (!kmesh_never_blocks(kmesh_kernel_socket(sk))) {
		count(KMESH_CLIENT_BLOCKS);
		return;
	}
	end = enrol(ctx);
	if (!end)
		return;
	key.server_isn = ctx->rcv_nxt - 1;
	end->connection = key;
	meeting.client = end->self;
	/* The same addresses and numbers twice at once: then nobody can tell, and nobody meets. */
	if (bpf_map_update_elem(&meetings, &key, &meeting, BPF_NOEXIST))
		bpf_map_delete_elem(&meetings, &key);
}

static __always_inline void accepted(struct bpf_sock_ops *ctx)
{
	struct kmesh_connection key = {};
	struct kmesh_meeting *meeting;
	struct kmesh_end *end;

	as_server(ctx, &key);
	key.client_isn = ctx->rcv_nxt - 1;
	key.server_isn = ctx->snd_nxt - 1;
	meeting = bpf_map_lookup_elem(&meetings, &key);
	if (!meeting || !meeting->client.cookie)
		return;
	end = enrol(ctx);
	if (!end)
		return;
	end->connection = key;
	end->peer = meeting->client;
	meeting->server.sock = end->self.sock;
	/* The cookie says that the card is complete. */
	__sync_fetch_and_add(&meeting->server.cookie, end->self.cookie);
	count(KMESH_PAIRED);
}

/*
 * Urgent data is about to reach a reader. What a verdict program lets through has lost its mark, so
 * the reader leaves for good: from here on its connection is an ordinary one. What was short-cut
 * before must have been read, as it would be lost.
 */
static __always_inline void leave_if_urgent(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_end *end;

	if (!(ctx->skb_tcp_flags & KMESH_TCP_URG) || !sk)
		return;
	end = bpf_sk_storage_get(&ends, sk, NULL, 0);
	if (end && !kmesh_waiting(end->self.sock))
		bpf_map_delete_elem(&sockets, &end->self.cookie);
}

/*
 * In two steps, as its peer may be about to redirect something here: first it is marked, and when
 * surely nothing is under way and everything has been read, it goes.
 */
static __always_inline void leave(struct bpf_sock_ops *ctx, struct kmesh_end *end)
{
	if (!end->leaving_at) {
		end->leaving_at = bpf_ktime_get_ns();
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | KMESH_LEAVING);
		return;
	}
	if (bpf_ktime_get_ns() - end->leaving_at < KMESH_GRACE_NS || kmesh_waiting(end->self.sock))
		return;
	if (!bpf_map_delete_elem(&sockets, &end->self.cookie))
		count(KMESH_LEFT);
	bpf_sock_ops_cb_flags_set(
		ctx, ctx->bpf_sock_ops_cb_flags &
			     ~(BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG));
}

/*
 * The sender of bulk comes here with every acknowledgement that it gets, its reader with every one
 * that it sends.
 */
static __always_inline void leave_if_bulk(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_end *end = sk ? bpf_sk_storage_get(&ends, sk, NULL, 0) : NULL;

	if (!end)
		return;
	if (end->passed >= KMESH_BULK ||
	    (end->peer.sock && kmesh_has_callbacks(end->peer.sock, KMESH_LEAVING)))
		leave(ctx, end);
}

static __always_inline void follow(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		listen(ctx);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		if (ctx->is_fullsock)
			leave_if_bulk(ctx);
		else
			announce(ctx);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		connected(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		stop_announcing(ctx);
		accepted(ctx);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		leave_if_bulk(ctx);
		break;
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		leave_if_urgent(ctx);
		break;
	}
}

SEC("sockops")
int kmesh_follow(struct bpf_sock_ops *ctx)
{
	if (settings_in_force())
		follow(ctx);
	return 1;
}

/*
 * The same for the root cgroup, where the network namespace tells who is managed: a server when it
 * begins to listen, a client when it is connected. What comes after concerns enrolled sockets only.
 * bpf_get_netns_cookie() in sockops programs: since 5.15, 6cf1770d63dd; loaded only where it is.
 */
KMESH_OPTIONAL_PROGRAM(kmesh_follow_netns);

SEC("sockops")
int kmesh_follow_netns(struct bpf_sock_ops *ctx)
{
	struct kmesh_netns_key key = {};

	if (ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB ||
	    ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		key.cookie = bpf_get_netns_cookie(ctx);
		if (!bpf_map_lookup_elem(&managed_netns, &key))
			return 1;
	}
	if (settings_in_force())
		follow(ctx);
	return 1;
}

/* The client's end, before its first message after the meeting. */
static __always_inline int meet(struct kmesh_end *end)
{
	struct kmesh_meeting *meeting;

	if (end->peer.cookie)
		return 1;
	meeting = bpf_map_lookup_elem(&meetings, &end->connection);
	if (!meeting || !meeting->server.cookie)
		return 0;
	end->peer.sock = meeting->server.sock;
	end->peer.cookie = meeting->server.cookie;
	bpf_map_delete_elem(&meetings, &end->connection);
	return 1;
}

static __always_inline int over_tcp(struct kmesh_end *end, __u32 size)
{
	if (!end->over_tcp) {
		count(KMESH_HELD_BACK);
		end->passed = 0;
	}
	end->over_tcp = 1;
	if (end->passed < KMESH_BULK)
		end->passed += size;
	return SK_PASS;
}

static __always_inline int may_be_short_cut(struct sk_msg_md *msg, struct bpf_sock *sk,
					    struct kmesh_end *end)
{
	/* After a shutdown() TCP says EPIPE. */
	if (sk->state != BPF_TCP_ESTABLISHED && sk->state != BPF_TCP_CLOSE_WAIT)
		return 0;
	if (msg->size <= KMESH_MAY_BE_URGENT)
		return 0;
	return !end->leaving_at && !kmesh_has_callbacks(end->peer.sock, KMESH_LEAVING) &&
	       kmesh_never_blocks(end->peer.sock) && !kmesh_waits_for_more(end->peer.sock) &&
	       !kmesh_has_layer(end->peer.sock) && !kmesh_has_layer(end->self.sock);
}

static __always_inline int shorten(struct sk_msg_md *msg, struct bpf_sock *sk,
				   const struct kmesh_accelerate_settings *limits,
				   struct kmesh_end *end)
{
	__u32 waiting = kmesh_waiting(end->peer.sock);

	if (!may_be_short_cut(msg, sk, end) || waiting > limits->high_water)
		return over_tcp(end, msg->size);
	if (end->over_tcp) {
		if (waiting || !kmesh_tcp_is_empty(end->peer.sock, end->self.sock))
			return over_tcp(end, msg->size);
		end->over_tcp = 0;
	}
	/* A reader that has closed is in the map no more: TCP tells the sender. */
	if (bpf_msg_redirect_hash(msg, &sockets, &end->peer.cookie, BPF_F_INGRESS) != SK_PASS)
		return over_tcp(end, msg->size);
	count(KMESH_SHORTENED);
	return SK_PASS;
}

SEC("sk_msg")
int kmesh_shorten(struct sk_msg_md *msg)
{
	const struct kmesh_accelerate_settings *limits = settings_in_force();
	struct bpf_sock *sk = msg->sk;
	struct kmesh_end *end;

	if (!sk)
		return SK_PASS;
	end = bpf_sk_storage_get(&ends, sk, NULL, 0);
	if (!end)
		return SK_PASS;
	if (!limits)
		return over_tcp(end, msg->size);
	return meet(end) ? shorten(msg, sk, limits, end) : SK_PASS;
}

/* Where the kernel counts for FIONREAD only what a verdict program let through. */
SEC("sk_skb/stream_verdict")
int kmesh_let_through(struct __sk_buff *skb)
{
	return kmesh_pass_once(skb);
}
