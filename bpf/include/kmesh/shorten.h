/* SPDX-License-Identifier: GPL-2.0-only */
/* What one enrolled application sends to another: past TCP as long as the reader keeps up. */
#ifndef KMESH_SHORTEN_H
#define KMESH_SHORTEN_H

#include <kmesh/accelerate.h>

/* The client's end, before its first message after the meeting. */
static __always_inline int kmesh_meet(struct kmesh_end *end)
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

static __always_inline int kmesh_over_tcp(struct kmesh_end *end, __u32 size)
{
	if (!end->over_tcp) {
		kmesh_tally(KMESH_HELD_BACK);
		end->passed = 0;
	}
	end->over_tcp = 1;
	if (end->passed < KMESH_BULK)
		end->passed += size;
	return SK_PASS;
}

static __always_inline int kmesh_may_be_short_cut(struct sk_msg_md *msg, struct bpf_sock *sk,
						  struct kmesh_end *end)
{
	/* After a shutdown() TCP says EPIPE. */
	if (sk->state != BPF_TCP_ESTABLISHED && sk->state != BPF_TCP_CLOSE_WAIT)
		return 0;
	if (msg->size <= KMESH_MAY_BE_URGENT)
		return 0;
	return !end->leaving_at && kmesh_takes_redirects(end->peer.sock) &&
	       !kmesh_has_layer(end->self.sock);
}

static __always_inline int kmesh_shorten_to_peer(struct sk_msg_md *msg, struct bpf_sock *sk,
						 const struct kmesh_accelerate_settings *limits,
						 struct kmesh_end *end)
{
	__u32 waiting = kmesh_waiting(end->peer.sock);

	if (!kmesh_may_be_short_cut(msg, sk, end) || waiting > limits->high_water)
		return kmesh_over_tcp(end, msg->size);
	if (end->over_tcp) {
		if (waiting || !kmesh_tcp_is_empty(end->peer.sock, end->self.sock))
			return kmesh_over_tcp(end, msg->size);
		end->over_tcp = 0;
	}
	/* A reader that has closed is in the map no more: TCP tells the sender. */
	if (bpf_msg_redirect_hash(msg, &sockets, &end->peer.cookie, BPF_F_INGRESS) != SK_PASS)
		return kmesh_over_tcp(end, msg->size);
	kmesh_tally(KMESH_SHORTENED);
	return SK_PASS;
}

static __always_inline int kmesh_short_cut(struct sk_msg_md *msg, struct bpf_sock *sk,
					   struct kmesh_end *end)
{
	const struct kmesh_accelerate_settings *limits = kmesh_settings_in_force();

	if (!limits)
		return kmesh_over_tcp(end, msg->size);
	return kmesh_meet(end) ? kmesh_shorten_to_peer(msg, sk, limits, end) : SK_PASS;
}

#endif
