/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who is whose peer within the node? Addresses do not tell: two network namespaces may use the same
 * ones, and an address may be another node's. So both ends are recognised by their connection's
 * addresses and both initial sequence numbers, which the two sockets of one connection share and no
 * others:
 *
 *   server   HDR_OPT_LEN            announces the SYN that it is about to answer
 *   client   ACTIVE_ESTABLISHED     finds its SYN announced: enrols, and leaves its card
 *   server   PASSIVE_ESTABLISHED    finds the card of its very peer: enrols, leaves its own
 *
 * A connection that leaves the node, comes from outside or has an unmanaged end is never enrolled,
 * nor is one whose ends block (flow_control.h).
 */
#ifndef KMESH_PAIR_H
#define KMESH_PAIR_H

#include <kmesh/accelerate.h>
#include <kmesh/kernel_socket.h>

/* Volatile, as a context may only be read at constant offsets and clang would merge the branches.
 */
static __always_inline void kmesh_copy_ends(const volatile struct bpf_sock_ops *ctx, __be32 *local,
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

static __always_inline void kmesh_as_client(struct bpf_sock_ops *ctx, struct kmesh_connection *key)
{
	kmesh_copy_ends(ctx, key->client, key->server);
	key->client_port = ctx->local_port;
	key->server_port = bpf_ntohl(ctx->remote_port);
}

static __always_inline void kmesh_as_server(struct bpf_sock_ops *ctx, struct kmesh_connection *key)
{
	kmesh_copy_ends(ctx, key->server, key->client);
	key->server_port = ctx->local_port;
	key->client_port = bpf_ntohl(ctx->remote_port);
}

/*
 * Only a socket that listens from now on announces: its flag is inherited by what it accepts. A
 * server that may block in accept() will block in recv() too: it is left alone.
 */
static __always_inline void kmesh_listen(struct bpf_sock_ops *ctx)
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
static __always_inline void kmesh_stop_announcing(struct bpf_sock_ops *ctx)
{
	if (ctx->bpf_sock_ops_cb_flags & KMESH_BLOCKS)
		kmesh_tally(KMESH_SERVER_BLOCKS);
	bpf_sock_ops_cb_flags_set(ctx,
				  ctx->bpf_sock_ops_cb_flags &
					  ~(BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | KMESH_BLOCKS));
}

/* A SYN with cookies has no request to announce; it stays with TCP. */
static __always_inline void kmesh_announce(struct bpf_sock_ops *ctx)
{
	struct kmesh_connection key = {};
	struct tcphdr syn = {};
	const __u8 there = 1;

	if (ctx->args[0])
		return;
	/* ENOSPC says that there is more than the fixed part of the header. */
	if (bpf_getsockopt(ctx, IPPROTO_TCP, TCP_BPF_SYN, &syn, sizeof(syn)) < 0 && !syn.seq)
		return;
	kmesh_as_server(ctx, &key);
	key.client_isn = bpf_ntohl(syn.seq);
	bpf_map_update_elem(&announced, &key, &there, BPF_ANY);
}

static __always_inline struct kmesh_end *kmesh_enrol_end(struct bpf_sock_ops *ctx)
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

/* Whether the server of an established client has announced its SYN: asked once. */
static __always_inline bool kmesh_is_announced(struct bpf_sock_ops *ctx,
					       struct kmesh_connection *key)
{
	kmesh_as_client(ctx, key);
	key->client_isn = ctx->snd_una - 1;
	if (bpf_map_delete_elem(&announced, key))
		return false;
	key->server_isn = ctx->rcv_nxt - 1;
	return true;
}

/* The same addresses and numbers twice at once: then nobody can tell, and nobody meets. */
static __always_inline void kmesh_leave_card(const struct kmesh_connection *key,
					     const struct kmesh_meeting *meeting)
{
	if (bpf_map_update_elem(&meetings, key, meeting, BPF_NOEXIST))
		bpf_map_delete_elem(&meetings, key);
}

static __always_inline bool kmesh_goes_to_a_waypoint(struct bpf_sock *sk)
{
	struct kmesh_peer *peer = bpf_sk_storage_get(&peers, sk, NULL, 0);

	return peer && peer->flags & KMESH_PEER_WAYPOINT;
}

/* A client that `is_free`: no other programs have its socket. */
static __always_inline void kmesh_connected(struct bpf_sock_ops *ctx, bool is_free)
{
	struct kmesh_connection key = {};
	struct kmesh_meeting meeting = {};
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_end *end;

	if (!sk || !kmesh_is_announced(ctx, &key) || !is_free || kmesh_goes_to_a_waypoint(sk))
		return;
	if (!kmesh_never_blocks(kmesh_kernel_socket(sk))) {
		kmesh_tally(KMESH_CLIENT_BLOCKS);
		return;
	}
	end = kmesh_enrol_end(ctx);
	if (!end)
		return;
	end->connection = key;
	meeting.client = end->self;
	kmesh_leave_card(&key, &meeting);
}

/* The server's end, when it has met its client. */
static __always_inline struct kmesh_end *kmesh_accepted(struct bpf_sock_ops *ctx)
{
	struct kmesh_connection key = {};
	struct kmesh_meeting *meeting;
	struct kmesh_end *end;

	kmesh_as_server(ctx, &key);
	key.client_isn = ctx->rcv_nxt - 1;
	key.server_isn = ctx->snd_nxt - 1;
	meeting = bpf_map_lookup_elem(&meetings, &key);
	if (!meeting || !meeting->client.cookie)
		return NULL;
	end = kmesh_enrol_end(ctx);
	if (!end)
		return NULL;
	end->connection = key;
	end->peer = meeting->client;
	end->of_gate = meeting->of_gate;
	meeting->server.sock = end->self.sock;
	/* The cookie says that the card is complete. */
	__sync_fetch_and_add(&meeting->server.cookie, end->self.cookie);
	kmesh_tally(KMESH_PAIRED);
	return end;
}

/*
 * Urgent data is about to reach a reader. What a verdict program lets through has lost its mark, so
 * the reader leaves for good: from here on its connection is an ordinary one. What was short-cut
 * before must have been read, as it would be lost.
 */
static __always_inline void kmesh_leave_if_urgent(struct bpf_sock_ops *ctx)
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
static __always_inline void kmesh_leave(struct bpf_sock_ops *ctx, struct kmesh_end *end)
{
	if (!end->leaving_at) {
		end->leaving_at = bpf_ktime_get_ns();
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | KMESH_LEAVING);
		return;
	}
	if (bpf_ktime_get_ns() - end->leaving_at < KMESH_GRACE_NS || kmesh_waiting(end->self.sock))
		return;
	if (!bpf_map_delete_elem(&sockets, &end->self.cookie))
		kmesh_tally(KMESH_LEFT);
	bpf_sock_ops_cb_flags_set(
		ctx, ctx->bpf_sock_ops_cb_flags &
			     ~(BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG));
}

/*
 * The sender of bulk comes here with every acknowledgement that it gets, its reader with every one
 * that it sends.
 */
static __always_inline void kmesh_leave_if_bulk(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_end *end = sk ? bpf_sk_storage_get(&ends, sk, NULL, 0) : NULL;

	if (!end)
		return;
	if (end->passed >= KMESH_BULK ||
	    (end->peer.sock && kmesh_has_callbacks(end->peer.sock, KMESH_LEAVING)))
		kmesh_leave(ctx, end);
}

/* What comes after the listening and the meeting, of sockets that are enrolled, and SYNs. */
static __always_inline void kmesh_look_after(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		kmesh_listen(ctx);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		if (ctx->is_fullsock)
			kmesh_leave_if_bulk(ctx);
		else
			kmesh_announce(ctx);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		kmesh_leave_if_bulk(ctx);
		break;
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		kmesh_leave_if_urgent(ctx);
		break;
	}
}

/*
 * For the root cgroup, where the network namespace tells who is managed: a server when it begins to
 * listen, a client when it is connected. What comes after concerns enrolled sockets only.
 */
static __always_inline bool kmesh_is_followed(struct bpf_sock_ops *ctx)
{
	struct kmesh_netns_key key = {};

	if (ctx->op != BPF_SOCK_OPS_TCP_LISTEN_CB && ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		return true;
	key.cookie = bpf_get_netns_cookie(ctx);
	return bpf_map_lookup_elem(&managed_netns, &key) != NULL;
}

#endif
