/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Datagrams of unconnected sockets, one by one. A socket keeps its endpoint of a service for as
 * long as the cluster has it in the same slot, so protocols with sessions (QUIC) hold together; and
 * an answer comes from the address that was asked, as resolvers insist.
 */
#ifndef KMESH_DATAGRAM_H
#define KMESH_DATAGRAM_H

#include <kmesh/service.h>

/* The flow of a service, copied; false when the socket has none. */
static __always_inline bool kmesh_find_flow(struct kmesh_flows *flows,
					    const struct kmesh_frontend_key *service,
					    struct kmesh_flow *copy)
{
	bool found = false;

	bpf_spin_lock(&flows->lock);
	for (kmesh_counter i = 0; i < KMESH_FLOWS; i++) {
		struct kmesh_flow *flow = &flows->flows[i];

		if (flow->service_port == service->port &&
		    kmesh_same_address(flow->service, service->address)) {
			*copy = *flow;
			found = true;
			break;
		}
	}
	bpf_spin_unlock(&flows->lock);
	return found;
}

/* Whether the cluster still has the flow's endpoint, which is then the choice. */
static __always_inline bool kmesh_flow_holds(const struct kmesh_flow *flow,
					     struct kmesh_choice *choice)
{
	struct kmesh_slot_key key = {.cluster = flow->cluster, .slot = flow->slot};

	return flow->cluster == choice->cluster && !kmesh_read_slot(&key, &choice->endpoint) &&
	       choice->endpoint.port == flow->endpoint_port &&
	       kmesh_same_address(choice->endpoint.address, flow->endpoint);
}

static __always_inline void kmesh_keep_flow(struct kmesh_flows *flows,
					    const struct kmesh_frontend_key *service,
					    const struct kmesh_choice *choice)
{
	struct kmesh_flow *flow;
	__u32 at;

	bpf_spin_lock(&flows->lock);
	at = flows->next;
	for (kmesh_counter i = 0; i < KMESH_FLOWS; i++) {
		flow = &flows->flows[i];
		if (flow->service_port == service->port &&
		    kmesh_same_address(flow->service, service->address)) {
			at = i; /* the same service again: its endpoint has gone */
			break;
		}
	}
	if (at == flows->next)
		flows->next = (at + 1) & (KMESH_FLOWS - 1);
	flow = &flows->flows[at & (KMESH_FLOWS - 1)];
	kmesh_copy_address(flow->service, service->address);
	kmesh_copy_address(flow->endpoint, choice->endpoint.address);
	flow->service_port = service->port;
	flow->endpoint_port = choice->endpoint.port;
	flow->slot = choice->slot;
	flow->cluster = choice->cluster;
	bpf_spin_unlock(&flows->lock);
}

/* The outcome of a sendmsg() with an address. */
static __always_inline enum kmesh_outcome kmesh_send(struct bpf_sock_addr *ctx,
						     const struct kmesh_frontend_key *service,
						     struct kmesh_choice *choice)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_flows *flows;
	struct kmesh_flow flow;

	if (!kmesh_find_cluster(service, choice))
		return KMESH_PASS;
	flows = sk ? bpf_sk_storage_get(&udp_flows, sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	/* Or clang 13 tests another copy of it than the one that it uses. */
	asm volatile("" : "+r"(flows));
	if (flows && kmesh_find_flow(flows, service, &flow) && kmesh_flow_holds(&flow, choice))
		return KMESH_REWRITE;
	if (kmesh_pick(choice))
		return KMESH_REFUSE;
	if (flows)
		kmesh_keep_flow(flows, service, choice);
	return KMESH_REWRITE;
}

/* Whether a datagram's sender stands for a service, which then takes its place in `from`. */
static __always_inline bool kmesh_receive(struct bpf_sock_addr *ctx,
					  struct kmesh_frontend_key *from)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_flows *flows;
	struct kmesh_peer *peer;
	bool found = false;

	if (!sk)
		return false;
	peer = bpf_sk_storage_get(&peers, sk, 0, 0);
	if (peer && peer->endpoint_port == from->port &&
	    kmesh_same_address(peer->endpoint, from->address)) {
		kmesh_copy_address(from->address, peer->service);
		from->port = peer->service_port;
		return true;
	}
	flows = bpf_sk_storage_get(&udp_flows, sk, 0, 0);
	if (!flows)
		return false;
	bpf_spin_lock(&flows->lock);
	for (kmesh_counter i = 0; i < KMESH_FLOWS; i++) {
		struct kmesh_flow *flow = &flows->flows[i];

		if (flow->endpoint_port == from->port &&
		    kmesh_same_address(flow->endpoint, from->address)) {
			kmesh_copy_address(from->address, flow->service);
			from->port = flow->service_port;
			found = true;
			break;
		}
	}
	bpf_spin_unlock(&flows->lock);
	return found;
}

#endif
