// SPDX-License-Identifier: GPL-2.0-only
/* Connections as they are established: clients' to the gate, and the gate's to endpoints. */
#include <kmesh/client.h>
#include <kmesh/flow_control.h>

char LICENSE[] SEC("license") = "GPL";

#define AF_INET6 10

/* See accelerate.bpf.c for both of these. */
static __always_inline void copy_local(const volatile struct bpf_sock_ops *ctx, __be32 *local)
{
	if (ctx->family == AF_INET6) {
		local[0] = ctx->local_ip6[0];
		local[1] = ctx->local_ip6[1];
		local[2] = ctx->local_ip6[2];
		local[3] = ctx->local_ip6[3];
		return;
	}
	kmesh_map_ip4(local, ctx->local_ip4);
}

static __always_inline __u64 kernel_socket(struct bpf_sock *sk)
{
	struct tcp_sock *found = (void *)bpf_skc_to_tcp_sock(sk);

	if (!found)
		return 0;
	asm volatile("" : "+r"(found));
	return (__u64)(long)found;
}

/* Without a slot the gate is told nothing, and closes the connection. */
static __always_inline bool take_slot(struct kmesh_client *client, __u32 first_received)
{
	struct kmesh_slot *slot;

	if (bpf_map_pop_elem(&free_slots, &client->slot)) {
		kmesh_count(KMESH_NO_SLOT);
		return false;
	}
	slot = bpf_map_lookup_elem(&gate_slots, &client->slot);
	if (!slot)
		return false;
	__builtin_memset(slot, 0, sizeof(*slot));
	slot->cookie = client->cookie;
	slot->sock = client->sock;
	slot->first_received = first_received;
	slot->homed_at = -1; /* none has */
	return true;
}

/* One from the same port before it, which the gate has never come to accept. */
static __always_inline void forget_former(const struct kmesh_session_key *key)
{
	struct kmesh_session *former = bpf_map_lookup_elem(&gate_sessions, key);
	__u32 slot;

	if (!former)
		return;
	slot = former->slot;
	if (!bpf_map_delete_elem(&gate_sessions, key)) /* else the gate has, and gives it back */
		bpf_map_push_elem(&free_slots, &slot, 0);
}

/* A passive end: the gate accepts after this, as the client's last acknowledgement is yet to go. */
static __always_inline void enrol(struct bpf_sock_ops *ctx)
{
	struct kmesh_session session = {.since = bpf_ktime_get_ns()};
	struct kmesh_session_key key = {};
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_client *client;

	client = sk ? bpf_sk_storage_get(&client_states, sk, 0, 0) : NULL;
	if (!client || client->cookie)
		return;
	client->cookie = bpf_get_socket_cookie(ctx);
	client->sock = kernel_socket(sk);
	client->first = ctx->snd_una;
	client->passed_at = -1; /* none was */
	client->turn = bpf_get_prandom_u32();
	if (!take_slot(client, ctx->rcv_nxt))
		return;
	key.netns = client->netns;
	copy_local(ctx, key.address);
	key.port = bpf_htons((__u16)ctx->local_port);
	session.cookie = client->cookie;
	kmesh_copy_address(session.service, client->service.address);
	session.service_port = client->service.port;
	session.slot = client->slot;
	forget_former(&key);
	if (bpf_map_update_elem(&gate_sessions, &key, &session, BPF_NOEXIST)) {
		bpf_map_push_elem(&free_slots, &client->slot, 0);
		kmesh_count(KMESH_NO_SLOT);
		return;
	}
	bpf_sock_hash_update(ctx, &clients, &client->cookie, BPF_NOEXIST);
}

SEC("sockops")
int kmesh_enrol(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		enrol(ctx);
	return 1;
}

/* The same for the root cgroup: only a socket that was managed when it connected is a client. */
SEC("sockops")
int kmesh_enrol_netns(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		enrol(ctx);
	return 1;
}

/* For the gate's own cgroup, in which nobody else connects to anything. */
SEC("sockops")
int kmesh_upstream_gate(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u64 cookie, sock;

	if (ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || !sk)
		return 1;
	cookie = bpf_get_socket_cookie(ctx);
	sock = kernel_socket(sk);
	if (!bpf_sock_hash_update(ctx, &upstreams, &cookie, BPF_NOEXIST))
		bpf_map_update_elem(&upstream_socks, &cookie, &sock, BPF_ANY);
	return 1;
}
