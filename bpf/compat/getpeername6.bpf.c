// SPDX-License-Identifier: GPL-2.0-only
/* getpeername() of IPv6 sockets tells the service that the application connected to. */
#include <kmesh/service.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline int getpeername6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_peer *peer = sk ? bpf_sk_storage_get(&peers, sk, 0, 0) : NULL;

	if (peer && ctx->user_ip6[0] == peer->endpoint[0] &&
	    ctx->user_ip6[1] == peer->endpoint[1] && ctx->user_ip6[2] == peer->endpoint[2] &&
	    ctx->user_ip6[3] == peer->endpoint[3] &&
	    (__be16)ctx->user_port == peer->endpoint_port) {
		ctx->user_ip6[0] = peer->service[0];
		ctx->user_ip6[1] = peer->service[1];
		ctx->user_ip6[2] = peer->service[2];
		ctx->user_ip6[3] = peer->service[3];
		ctx->user_port = peer->service_port;
	}
	return 1;
}

KMESH_HOOK("cgroup/getpeername6", getpeername6, getpeername6)
