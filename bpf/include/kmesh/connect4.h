/* SPDX-License-Identifier: GPL-2.0-only */
/* connect() of IPv4 sockets on the enhanced path. */
#ifndef KMESH_CONNECT4_H
#define KMESH_CONNECT4_H

#include <kmesh/answer.h>
#include <kmesh/client.h>

/*
 * A service with routes is reached by the gate on loopback, another's address becomes an endpoint's
 * as on the compat path.
 */
static __always_inline int kmesh_route_connect4(struct bpf_sock_addr *ctx,
						const struct kmesh_frontend_key *service)
{
	struct kmesh_choice choice = {};
	enum kmesh_outcome outcome;
	__be32 loopback[4];

	kmesh_map_ip4(loopback, KMESH_LOOPBACK4);
	outcome = kmesh_connect_to_gate(ctx, service, KMESH_GATE_IP4, loopback, &choice);
	if (outcome == KMESH_PASS) {
		outcome = kmesh_connect(ctx, service, &choice);
		if (outcome == KMESH_REWRITE)
			kmesh_forget_client(ctx);
	}
	return kmesh_answer4(ctx, outcome, &choice);
}

#endif
