// SPDX-License-Identifier: GPL-2.0-only
/*
 * Same-node acceleration beside the enhanced path. What applications of this node send to each
 * other goes past TCP, as beside the compat path. And where an endpoint of HTTP routes is on this
 * node: the request goes into the endpoint's receive queue (request.bpf.c, by `servers`), and its
 * response from here into the client's.
 *
 * What the gate sends to an endpoint, and what is for the gate to read, goes by TCP.
 */
#include <kmesh/home.h>
#include <kmesh/optional.h>
#include <kmesh/pair.h>
#include <kmesh/servers.h>
#include <kmesh/shorten.h>
#include <kmesh/stream.h>

char LICENSE[] SEC("license") = "GPL";

/* A client of services with routes has a program that reads its requests. */
static __always_inline bool is_free(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && !bpf_sk_storage_get(&client_states, sk, NULL, 0);
}

/* The server has met a connection of the gate's: nobody else is to take note. */
static __always_inline void met_gate(struct kmesh_end *end)
{
	__u64 cookie = end->peer.cookie;

	bpf_map_delete_elem(&meetings, &end->connection);
	bpf_map_update_elem(&servers, &cookie, &end->self, BPF_ANY);
}

static __always_inline void follow(struct bpf_sock_ops *ctx)
{
	struct kmesh_end *end;

	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		kmesh_connected(ctx, is_free(ctx));
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		kmesh_stop_announcing(ctx);
		end = kmesh_accepted(ctx);
		if (end && end->of_gate)
			met_gate(end);
		break;
	default:
		kmesh_look_after(ctx);
	}
}

SEC("sockops")
int kmesh_follow(struct bpf_sock_ops *ctx)
{
	if (kmesh_settings_in_force())
		follow(ctx);
	return 1;
}

/* See accelerate.bpf.c. */
KMESH_OPTIONAL_PROGRAM(kmesh_follow_netns);

SEC("sockops")
int kmesh_follow_netns(struct bpf_sock_ops *ctx)
{
	if (kmesh_is_followed(ctx) && kmesh_settings_in_force())
		follow(ctx);
	return 1;
}

/*
 * For the gate's own cgroup. It runs before those of the cgroups above, which find the SYN asked
 * for already: the connection is in the map of the gate's, and cannot be in another with programs.
 */
SEC("sockops")
int kmesh_follow_gate(struct bpf_sock_ops *ctx)
{
	struct kmesh_connection key = {};
	struct kmesh_meeting meeting = {.of_gate = 1};
	struct bpf_sock *sk = ctx->sk;

	if (ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || !sk || !kmesh_settings_in_force() ||
	    !kmesh_is_announced(ctx, &key))
		return 1;
	meeting.client.cookie = bpf_get_socket_cookie(ctx);
	meeting.client.sock = kmesh_kernel_socket(sk);
	kmesh_leave_card(&key, &meeting);
	return 1;
}

static __always_inline __u32 whole_status(struct sk_msg_md *msg)
{
	__u32 size = msg->size;

	if (size > KMESH_HOME_WHOLE)
		return 0;
	if (size > KMESH_RESPONSE_HEAD)
		size = KMESH_RESPONSE_HEAD;
	if (bpf_msg_pull_data(msg, 0, size, 0))
		return 0;
	return kmesh_http_whole_status(msg->data, msg->data_end, msg->size);
}

/* The response to a request that the kernel sent: whether the client has it now. */
static __always_inline bool goes_home(struct sk_msg_md *msg, struct kmesh_upstream *upstream,
				      __u32 number, __u64 sender)
{
	struct kmesh_slot *slot = kmesh_home_slot(upstream, number);
	__u64 client = upstream->client, psock;
	__u32 status;

	if (!slot || !kmesh_is_ready(slot) || bpf_map_lookup_elem(&taken_heads, &number))
		return false; /* the last: there is an access log */
	psock = kmesh_psock_of(sender);
	if (kmesh_holders(psock) != KMESH_HELD_BY_SENDER)
		return false; /* it could not be told when it is done */
	status = whole_status(msg);
	if (!status || bpf_msg_redirect_hash(msg, &clients, &client, BPF_F_INGRESS) != SK_PASS)
		return false; /* the second: it has just been closed */
	kmesh_gone_home(upstream, slot, status, msg->size, psock, sender);
	return true;
}

/* What the gate has read it does not wait for: what is sent meanwhile is no bulk. */
static __always_inline int answer_by_gate(struct sk_msg_md *msg, struct kmesh_end *end,
					  bool is_read)
{
	if (is_read)
		end->passed = 0;
	return kmesh_over_tcp(end, msg->size);
}

static __always_inline int answer(struct sk_msg_md *msg, struct bpf_sock *sk, struct kmesh_end *end)
{
	bool is_read = kmesh_tcp_is_empty(end->peer.sock, end->self.sock);
	__u64 cookie = end->peer.cookie;
	__u32 *id = bpf_map_lookup_elem(&upstream_ids, &cookie), number;
	struct kmesh_upstream *upstream;

	if (!id)
		return answer_by_gate(msg, end, is_read);
	number = *id;
	upstream = bpf_map_lookup_elem(&gate_upstreams, &number);
	if (!upstream || upstream->cookie != cookie)
		return answer_by_gate(msg, end, is_read);
	if (is_read && kmesh_settings_in_force() && sk->state == BPF_TCP_ESTABLISHED &&
	    !kmesh_has_layer(end->self.sock) && goes_home(msg, upstream, number, end->self.sock))
		return SK_PASS;
	upstream->flags |= KMESH_RESPONSE_PASSED;
	return answer_by_gate(msg, end, is_read);
}

SEC("sk_msg")
int kmesh_shorten(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct kmesh_end *end = sk ? bpf_sk_storage_get(&ends, sk, NULL, 0) : NULL;

	if (!end)
		return SK_PASS;
	return end->of_gate ? answer(msg, sk, end) : kmesh_short_cut(msg, sk, end);
}

/* See accelerate.bpf.c. */
SEC("sk_skb/stream_verdict")
int kmesh_let_through(struct __sk_buff *skb)
{
	return kmesh_pass_once(skb);
}
