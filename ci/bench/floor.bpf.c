// SPDX-License-Identifier: GPL-2.0-only
/*
 * The least that anything past TCP costs: each message goes into the other end's queue, whatever
 * it is and whether or not there is room. Nothing is read, routed or counted, and a slow reader
 * would fill the kernel's memory: it tells what is left to be had, and is no way to run anything.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 port; /* the server's */

struct end {
	__u64 self, peer;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct end);
} ends SEC(".maps");

SEC("sockops")
int floor_join(struct bpf_sock_ops *ctx)
{
	__u64 near = ctx->local_port, far = bpf_ntohl(ctx->remote_port), key;
	struct bpf_sock *sk = ctx->sk;
	struct end *end;

	if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
		    ? far != port
		    : ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB || near != port)
		return 1;
	end = sk ? bpf_sk_storage_get(&ends, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	if (!end)
		return 1;
	end->self = key = near << 32 | far;
	end->peer = far << 32 | near;
	bpf_sock_hash_update(ctx, &sockets, &key, BPF_ANY);
	return 1;
}

SEC("sk_msg")
int floor_send(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct end *end = sk ? bpf_sk_storage_get(&ends, sk, NULL, 0) : NULL;

	if (end) /* where the other end is not in the map yet, it goes over TCP */
		bpf_msg_redirect_hash(msg, &sockets, &end->peer, BPF_F_INGRESS);
	return SK_PASS;
}
