// SPDX-License-Identifier: GPL-2.0-only
/* recvmsg() of IPv4 sockets: an answer comes from the service that was asked. */
#include <kmesh/datagram.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct kmesh_frontend_key from = {.port = ctx->user_port};

	kmesh_map_ip4(from.address, ctx->user_ip4);
	if (kmesh_receive(ctx, &from)) {
		ctx->user_ip4 = from.address[3];
		ctx->user_port = from.port;
	}
	return 1;
}

KMESH_HOOK("cgroup/recvmsg4", recvmsg4, recvmsg4)
