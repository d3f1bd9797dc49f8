// SPDX-License-Identifier: GPL-2.0-only
/* connect() of IPv4 sockets: a service's address becomes an endpoint's before the first packet. */
#include <kmesh/answer.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline int connect4(struct bpf_sock_addr *ctx)
{
	struct kmesh_frontend_key service = {.port = ctx->user_port, .protocol = ctx->protocol};
	struct kmesh_choice choice = {};

	kmesh_map_ip4(service.address, ctx->user_ip4);
	return kmesh_answer4(ctx, kmesh_connect(ctx, &service, &choice), &choice);
}

KMESH_HOOK("cgroup/connect4", connect4, connect4)
