/* SPDX-License-Identifier: GPL-2.0-only */
/* From a service's address to an endpoint's, and what a socket remembers of it. */
#ifndef KMESH_SERVICE_H
#define KMESH_SERVICE_H

#include <kmesh/address.h>
#include <kmesh/balance.h>
#include <kmesh/bar.h>
#include <kmesh/drift.h>
#include <kmesh/maps.h>
#include <stdbool.h>

enum kmesh_outcome {
	KMESH_PASS,    /* no service of ours: the connection goes where it was going */
	KMESH_REWRITE, /* to the endpoint chosen */
	KMESH_REFUSE,  /* nobody serves */
};

/* The cluster behind a service's address and port, into `choice`; false when it is none of ours. */
static __always_inline bool kmesh_find_cluster(const struct kmesh_frontend_key *service,
					       struct kmesh_choice *choice)
{
	/* See balance.h. After an update in this very moment the second look is the right one. */
	for (kmesh_counter i = 0; i < 2; i++) {
		struct kmesh_frontend *found = bpf_map_lookup_elem(&frontends, service);

		if (!found)
			return false;
		choice->cluster = found->cluster;
		choice->frontend_flags = found->flags;
		if (bpf_map_lookup_elem(&frontends, service) == found)
			break;
	}
	return true;
}

/* False when there is no memory for it. */
static __always_inline bool kmesh_remember_peer(struct bpf_sock_addr *ctx,
						const struct kmesh_frontend_key *service,
						const struct kmesh_choice *choice)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_peer *peer;

	if (!sk)
		return false;
	peer = bpf_sk_storage_get(&peers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!peer)
		return false;
	kmesh_copy_address(peer->service, service->address);
	kmesh_copy_address(peer->endpoint, choice->endpoint.address);
	peer->service_port = service->port;
	peer->endpoint_port = choice->endpoint.port;
	peer->flags = choice->frontend_flags & KMESH_FRONTEND_WAYPOINT ? KMESH_PEER_WAYPOINT : 0;
	return true;
}

/*
 * A socket that connects elsewhere has no service any more. Where two cgroups above each other are
 * enrolled the programs run twice: the second sees the endpoint, and must leave it alone.
 */
static __always_inline void kmesh_forget_peer(struct bpf_sock_addr *ctx,
					      const struct kmesh_frontend_key *going)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_peer *peer;

	if (!sk)
		return;
	peer = bpf_sk_storage_get(&peers, sk, 0, 0);
	if (!peer)
		return;
	if (peer->endpoint_port == going->port &&
	    kmesh_same_address(peer->endpoint, going->address))
		return;
	bpf_sk_storage_delete(&peers, sk);
}

/*
 * Whether a program of a cgroup below has sent this connect() there already. An endpoint's own
 * address may have a waypoint of its own, which is for those who asked for it.
 */
static __always_inline bool kmesh_is_rewritten(struct bpf_sock_addr *ctx,
					       const struct kmesh_frontend_key *going)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_peer *peer = sk ? bpf_sk_storage_get(&peers, sk, 0, 0) : NULL;

	return peer && peer->endpoint_port == going->port &&
	       kmesh_same_address(peer->endpoint, going->address);
}

/* The outcome of a connect(): where it goes is in `choice` after KMESH_REWRITE. */
static __always_inline enum kmesh_outcome kmesh_connect(struct bpf_sock_addr *ctx,
							const struct kmesh_frontend_key *service,
							struct kmesh_choice *choice)
{
	bool through;

	if (!kmesh_find_cluster(service, choice)) {
		kmesh_forget_peer(ctx, service);
		return KMESH_PASS;
	}
	through = choice->frontend_flags & KMESH_FRONTEND_WAYPOINT;
	if (through && kmesh_is_rewritten(ctx, service))
		return KMESH_PASS;
	if ((through && kmesh_no_room()) || kmesh_pick(choice)) {
		kmesh_forget_peer(ctx, service);
		return KMESH_REFUSE;
	}
	if (through && kmesh_is_barred(&choice->endpoint))
		kmesh_pick_another(choice);
	/* Unremembered, the application sees the endpoint's address; a waypoint would see nothing.
	 */
	if (!kmesh_remember_peer(ctx, service, choice) && through)
		return KMESH_REFUSE;
	return KMESH_REWRITE;
}

/* bpf_get_netns_cookie() in sock_addr programs: since 5.7, f318903c0bf4. */
static __always_inline int kmesh_netns_is_managed(struct bpf_sock_addr *ctx)
{
	struct kmesh_netns_key key = {.cookie = bpf_get_netns_cookie(ctx)};

	return bpf_map_lookup_elem(&managed_netns, &key) != NULL;
}

/*
 * Each hook is there twice: for enrolled cgroups, where whoever runs it is managed, and for the
 * root cgroup, where the network namespace tells. They never share a prog_array: since the fix of
 * CVE-2025-40123 that pins one attach type.
 */
#define KMESH_HOOK(section, name, body)                                                            \
	SEC(section)                                                                               \
	int kmesh_##name(struct bpf_sock_addr *ctx)                                                \
	{                                                                                          \
		return body(ctx);                                                                  \
	}                                                                                          \
	SEC(section)                                                                               \
	int kmesh_##name##_netns(struct bpf_sock_addr *ctx)                                        \
	{                                                                                          \
		return kmesh_netns_is_managed(ctx) ? body(ctx) : 1;                                \
	}

#endif
