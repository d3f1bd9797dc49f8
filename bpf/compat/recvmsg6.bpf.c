// SPDX-License-Identifier: GPL-2.0-only
/* recvmsg() of IPv6 sockets: an answer comes from the service that was asked. */
#include <kmesh/datagram.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct kmesh_frontend_key from = {.port = ctx->user_port};

	from.address[0] = ctx->user_ip6[0];
	from.address[1] = ctx->user_ip6[1];
	from.address[2] = ctx->user_ip6[2];
	from.address[3] = ctx->user_ip6[3];
	if (kmesh_receive(ctx, &from)) {
		ctx->user_ip6[0] = from.address[0];
		ctx->user_ip6[1] = from.address[1];
		ctx->user_ip6[2] = from.address[2];
		ctx->user_ip6[3] = from.address[3];
		ctx->user_port = from.port;
	}
	return 1;
}

KMESH_HOOK("cgroup/recvmsg6", recvmsg6, recvmsg6)
