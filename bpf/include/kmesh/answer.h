/* SPDX-License-Identifier: GPL-2.0-only */
/* What a hook on an address that is connected or sent to returns, and what becomes of the address.
 */
#ifndef KMESH_ANSWER_H
#define KMESH_ANSWER_H

#include <kmesh/service.h>

static __always_inline int kmesh_answer4(struct bpf_sock_addr *ctx, enum kmesh_outcome outcome,
					 const struct kmesh_choice *choice)
{
	switch (outcome) {
	case KMESH_REWRITE:
		ctx->user_ip4 = choice->endpoint.address[3];
		ctx->user_port = choice->endpoint.port;
		return 1;
	case KMESH_REFUSE:
		return kmesh_refuse();
	default:
		return 1;
	}
}

static __always_inline int kmesh_answer6(struct bpf_sock_addr *ctx, enum kmesh_outcome outcome,
					 const struct kmesh_choice *choice)
{
	switch (outcome) {
	case KMESH_REWRITE:
		ctx->user_ip6[0] = choice->endpoint.address[0];
		ctx->user_ip6[1] = choice->endpoint.address[1];
		ctx->user_ip6[2] = choice->endpoint.address[2];
		ctx->user_ip6[3] = choice->endpoint.address[3];
		ctx->user_port = choice->endpoint.port;
		return 1;
	case KMESH_REFUSE:
		return kmesh_refuse();
	default:
		return 1;
	}
}

#endif
