// SPDX-License-Identifier: GPL-2.0-only
/* sendmsg() with an IPv6 address. */
#include <kmesh/answer.h>
#include <kmesh/datagram.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct kmesh_frontend_key service = {.port = ctx->user_port, .protocol = ctx->protocol};
	struct kmesh_choice choice = {};

	service.address[0] = ctx->user_ip6[0];
	service.address[1] = ctx->user_ip6[1];
	service.address[2] = ctx->user_ip6[2];
	service.address[3] = ctx->user_ip6[3];
	return kmesh_answer6(ctx, kmesh_send(ctx, &service, &choice), &choice);
}

KMESH_HOOK("cgroup/sendmsg6", sendmsg6, sendmsg6)
