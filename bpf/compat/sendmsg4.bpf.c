// SPDX-License-Identifier: GPL-2.0-only
/* sendmsg() with an IPv4 address: also of IPv6 sockets with a mapped one (udpv6_sendmsg). */
#include <kmesh/answer.h>
#include <kmesh/datagram.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct kmesh_frontend_key service = {.port = ctx->user_port, .protocol = ctx->protocol};
	struct kmesh_choice choice = {};

	kmesh_map_ip4(service.address, ctx->user_ip4);
	return kmesh_answer4(ctx, kmesh_send(ctx, &service, &choice), &choice);
}

KMESH_HOOK("cgroup/sendmsg4", sendmsg4, sendmsg4)
