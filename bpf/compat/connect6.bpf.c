// SPDX-License-Identifier: GPL-2.0-only
/*
 * connect() of IPv6 sockets, which also reach IPv4 services as ::ffff:a.b.c.d: a cluster holds
 * endpoints of its service address's family, so a mapped address becomes a mapped one.
 */
#include <kmesh/answer.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline int connect6(struct bpf_sock_addr *ctx)
{
	struct kmesh_frontend_key service = {.port = ctx->user_port, .protocol = ctx->protocol};
	struct kmesh_choice choice = {};

	service.address[0] = ctx->user_ip6[0];
	service.address[1] = ctx->user_ip6[1];
	service.address[2] = ctx->user_ip6[2];
	service.address[3] = ctx->user_ip6[3];
	return kmesh_answer6(ctx, kmesh_connect(ctx, &service, &choice), &choice);
}

KMESH_HOOK("cgroup/connect6", connect6, connect6)
