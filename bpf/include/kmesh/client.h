/* SPDX-License-Identifier: GPL-2.0-only */
/* Connections to services with routes: by the gate of the client's network namespace. */
#ifndef KMESH_CLIENT_H
#define KMESH_CLIENT_H

#include <kmesh/gate.h>
#include <kmesh/http/types.h>
#include <kmesh/service.h>

#define KMESH_IPPROTO_TCP 6
#define KMESH_LOOPBACK4	  bpf_htonl(0x7f000001)

#define KMESH_HELD 4 /* endpoints whose connections a client keeps */

/*
 * A connection that a client keeps for its next request to the same endpoint. It is the client's as
 * long as gate_upstreams says so too: the gate recalls it there, or has closed it.
 */
struct kmesh_held {
	__u64 cookie; /* the connection's; 0: none */
	__be32 address[4];
	__be16 port;
	__u16 pad;
	__u32 upstream;
};

/* What the kernel remembers of a client's socket from its connect() on. */
struct kmesh_client {
	__u64 cookie; /* 0: not established yet */
	__u64 netns;  /* taken at connect(): later programs cannot ask for it on 5.10 */
	__u64 sock;
	struct kmesh_frontend_key service;
	__u32 slot;
	__u32 first; /* sequence number of its first byte */
	/* `published` when a message was last passed: it is answered in no case before that is
	   another, though numbers of bytes come again after 4 GiB. */
	__u32 passed_at;
	/* From one step to the next with a message. */
	__u32 stat;
	__u32 answer; /* which of the port's */
	__u32 turn;   /* of endpoints, one after the other from anywhere on */
	struct kmesh_http_port port;
	struct kmesh_http_head head;
	struct kmesh_http_reading reading;
	struct kmesh_http_walk walk;
	struct kmesh_http_outcome outcome;
	struct kmesh_held held[KMESH_HELD];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kmesh_client);
} client_states SEC(".maps");

/* By cookie. The kernel takes a socket out when it closes. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, KMESH_SLOTS);
	__type(key, __u64);
	__type(value, __u64);
} clients SEC(".maps");

/* Connections of the gate to endpoints, by cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, KMESH_UPSTREAMS);
	__type(key, __u64);
	__type(value, __u64);
} upstreams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KMESH_GATE_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} gate_counters SEC(".maps");

static __always_inline void kmesh_count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&gate_counters, &which);

	if (value)
		*value += 1;
}

/* See balance.h for why it is looked up twice. */
static __always_inline bool kmesh_find_http_port(const struct kmesh_frontend_key *service,
						 struct kmesh_http_port *port)
{
	struct kmesh_http_port *found = bpf_map_lookup_elem(&http_ports, service);

	if (!found)
		return false;
	*port = *found;
	return bpf_map_lookup_elem(&http_ports, service) == found;
}

static __always_inline bool kmesh_remember_client(struct bpf_sock_addr *ctx,
						  const struct kmesh_frontend_key *service,
						  __u64 netns)
{
	struct bpf_sock *sk = ctx->sk;
	struct kmesh_client *client;

	if (!sk)
		return false;
	client = bpf_sk_storage_get(&client_states, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!client)
		return false;
	client->cookie = 0;
	client->netns = netns;
	client->service = *service;
	return true;
}

static __always_inline struct kmesh_client *kmesh_client_of(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;

	return sk ? bpf_sk_storage_get(&client_states, sk, 0, 0) : NULL;
}

static __always_inline void kmesh_forget_client(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk)
		bpf_sk_storage_delete(&client_states, sk);
}

/*
 * A connection to a service with routes goes to the gate, or nowhere: an endpoint that no route
 * chose would be a wrong one. `family` is the one that the gate has to listen in; the port where it
 * does is in choice->endpoint.
 */
static __always_inline enum kmesh_outcome
kmesh_connect_to_gate(struct bpf_sock_addr *ctx, const struct kmesh_frontend_key *service,
		      __u16 family, const __be32 *loopback, struct kmesh_choice *choice)
{
	struct kmesh_gate_key key = {};
	struct kmesh_gate *gate;

	if (service->protocol != KMESH_IPPROTO_TCP || !bpf_map_lookup_elem(&http_ports, service))
		return KMESH_PASS;
	key.netns = bpf_get_netns_cookie(ctx);
	gate = bpf_map_lookup_elem(&gates, &key);
	if (!gate || !(gate->flags & family))
		return KMESH_REFUSE;
	kmesh_copy_address(choice->endpoint.address, loopback);
	choice->endpoint.port = gate->port;
	if (!kmesh_remember_peer(ctx, service, choice) ||
	    !kmesh_remember_client(ctx, service, key.netns))
		return KMESH_REFUSE;
	return KMESH_REWRITE;
}

#endif
