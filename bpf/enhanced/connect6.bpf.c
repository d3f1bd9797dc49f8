// SPDX-License-Identifier: GPL-2.0-only
/* connect() of IPv6 sockets: as connect4.bpf.c and compat/connect6.bpf.c have it. */
#include <kmesh/answer.h>
#include <kmesh/client.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline enum kmesh_outcome to_gate(struct bpf_sock_addr *ctx,
						  const struct kmesh_frontend_key *service,
						  struct kmesh_choice *choice)
{
	__be32 loopback[4] = {0, 0, 0, bpf_htonl(1)};

	if (!kmesh_is_mapped(service->address))
		return kmesh_connect_to_gate(ctx, service, KMESH_GATE_IP6, loopback, choice);
	kmesh_map_ip4(loopback, KMESH_LOOPBACK4);
	return kmesh_connect_to_gate(ctx, service, KMESH_GATE_IP4, loopback, choice);
}

static __always_inline int connect6(struct bpf_sock_addr *ctx)
{
	struct kmesh_frontend_key service = {.port = ctx->user_port, .protocol = ctx->protocol};
	struct kmesh_choice choice = {};
	enum kmesh_outcome outcome;

	service.address[0] = ctx->user_ip6[0];
	service.address[1] = ctx->user_ip6[1];
	service.address[2] = ctx->user_ip6[2];
	service.address[3] = ctx->user_ip6[3];
	outcome = to_gate(ctx, &service, &choice);
	if (outcome == KMESH_PASS) {
		outcome = kmesh_connect(ctx, &service, &choice);
		if (outcome == KMESH_REWRITE)
			kmesh_forget_client(ctx);
	}
	return kmesh_answer6(ctx, outcome, &choice);
}

KMESH_HOOK("cgroup/connect6", connect6, connect6)
