// SPDX-License-Identifier: GPL-2.0-only
/* connect() of IPv4 sockets. */
#include <kmesh/connect4.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline int connect4(struct bpf_sock_addr *ctx)
{
	struct kmesh_frontend_key service = {.port = ctx->user_port, .protocol = ctx->protocol};

	kmesh_map_ip4(service.address, ctx->user_ip4);
	return kmesh_route_connect4(ctx, &service);
}

KMESH_HOOK("cgroup/connect4", connect4, connect4)
