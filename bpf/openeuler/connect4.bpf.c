// SPDX-License-Identifier: GPL-2.0-only
/*
 * connect() of IPv4 sockets where the kernel carries Kmesh's own functions. One to a service with
 * routes is deferred until its first bytes are there. Those that are one whole plain request, and
 * the connection's only one (Connection: close), go straight to the endpoint that their route
 * chooses; all else goes to the gate, as on stock kernels.
 *
 * The route is chosen by our own reader and router over the same bytes. That the kernel's reader
 * sees the same request is asked besides: bytes that two readers take for two things are not ours
 * to route.
 */
#include <kmesh/connect4.h>
#include <kmesh/http/maps.h>
#include <kmesh/http/match.h>
#include <kmesh/route.h>

#include "kfuncs.h"

char LICENSE[] SEC("license") = "GPL";

/* While a deferred connect() is decided. Bytes twice: any place with any size is within them. */
struct kmesh_deferred {
	struct kmesh_frontend_key service;
	struct kmesh_http_port port;
	struct kmesh_http_head head;
	struct kmesh_http_reading reading;
	struct kmesh_http_walk walk;
	struct kmesh_http_outcome outcome;
	__u32 size;
	__u32 pad;
	__u8 bytes[2 * KMESH_HTTP_HEAD_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kmesh_deferred);
} deferred SEC(".maps");

static __always_inline struct kmesh_deferred *deferred_of(struct bpf_sock_addr *ctx, __u64 flags)
{
	struct bpf_sock *sk = ctx->sk;

	return sk ? bpf_sk_storage_get(&deferred, sk, 0, flags) : NULL;
}

static __always_inline bool copy(struct kmesh_deferred *into, const struct kmesh_mem_ptr *message)
{
	__u64 size = message->size;

	if (!size || size >= KMESH_HTTP_HEAD_MAX)
		return false;
	KMESH_HTTP_MASK(size, KMESH_HTTP_HEAD_MAX - 1);
	into->size = size;
	return !bpf_probe_read_kernel(into->bytes, size, message->ptr);
}

/* One whole request, and the last of its connection: nothing that follows could be misrouted. */
static __always_inline bool is_only_one(const struct kmesh_deferred *at)
{
	const __u64 closes = KMESH_HTTP_BIT(KMESH_HTTP_SEEN_CLOSE);

	return (at->head.seen & KMESH_HTTP_NOT_PLAIN) == closes &&
	       at->head.length + at->head.content_length == at->size;
}

static __always_inline bool is_agreed(struct bpf_sock_addr *ctx, struct kmesh_deferred *at)
{
	__u64 start = at->head.start[KMESH_HTTP_TARGET];
	__u64 size = at->head.end[KMESH_HTTP_TARGET] - start;

	KMESH_HTTP_MASK(start, KMESH_HTTP_HEAD_MAX - 1);
	KMESH_HTTP_MASK(size, KMESH_HTTP_HEAD_MAX - 1);
	return kmesh_is_request(ctx) && kmesh_has_target((char *)at->bytes + start, size);
}

static __always_inline bool find_cluster(__u64 table, __u32 index, __u64 *cluster)
{
	struct kmesh_route_key key = {.table = table, .route = index};
	struct kmesh_route *route = bpf_map_lookup_elem(&http_routes, &key);

	if (!route || route->kind != KMESH_ROUTE_FORWARD)
		return false;
	*cluster = kmesh_route_cluster(route);
	return bpf_map_lookup_elem(&http_routes, &key) == route; /* see balance.h */
}

static __always_inline struct kmesh_http_input input_of(struct kmesh_deferred *at)
{
	struct kmesh_http_input in = {.data = at->bytes, .end = at->bytes};
	__u64 size = at->size;

	KMESH_HTTP_MASK(size, KMESH_HTTP_HEAD_MAX - 1);
	in.end += size;
	return in;
}

/* Not static, as in enhanced/request.bpf.c. */
__noinline int kmesh_read_piece(struct bpf_sock_addr *ctx)
{
	struct kmesh_deferred *at = deferred_of(ctx, 0);
	const struct kmesh_http_grammar *grammar;
	struct kmesh_http_input in;

	grammar = at ? kmesh_http_grammar_of(at->port.grammar) : NULL;
	if (!grammar)
		return KMESH_HTTP_NO_TABLE;
	in = input_of(at);
	if (!at->reading.at)
		kmesh_http_begin(grammar, &at->head, &at->reading);
	return kmesh_http_read(&in, grammar, &at->head, &at->reading);
}

__noinline int kmesh_match_piece(struct bpf_sock_addr *ctx)
{
	struct kmesh_deferred *at = deferred_of(ctx, 0);
	struct kmesh_http_input in;
	void *graph;

	graph = at ? kmesh_http_graph_of(at->port.graph) : NULL;
	if (!graph)
		return KMESH_HTTP_NO_TABLE;
	in = input_of(at);
	if (!at->walk.steps && kmesh_http_enter(&at->head, graph, &at->walk) != KMESH_HTTP_MORE)
		return KMESH_HTTP_NO_TABLE;
	return kmesh_http_step(&in, &at->head, graph, &at->walk, &at->outcome);
}

static __always_inline bool read_head(struct bpf_sock_addr *ctx, struct kmesh_deferred *at)
{
	at->reading.at = 0;
	for (int i = 0; i < KMESH_HTTP_HEAD_MAX / KMESH_HTTP_PIECE; i++) {
		int verdict = kmesh_read_piece(ctx);

		if (verdict != KMESH_HTTP_MORE)
			return verdict == KMESH_HTTP_OK;
	}
	return false;
}

static __always_inline bool match_head(struct bpf_sock_addr *ctx, struct kmesh_deferred *at)
{
	at->walk.steps = 0;
	for (int i = 0; i < KMESH_HTTP_STEPS / KMESH_HTTP_PIECE; i++) {
		int verdict = kmesh_match_piece(ctx);

		if (verdict != KMESH_HTTP_MORE)
			return verdict == KMESH_HTTP_OK;
	}
	return false;
}

static __always_inline void forget_deferred(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk)
		bpf_sk_storage_delete(&deferred, sk);
}

/* False: it is the gate's. */
static __always_inline bool go_straight(struct bpf_sock_addr *ctx, struct kmesh_deferred *at,
					struct kmesh_choice *choice)
{
	return read_head(ctx, at) && is_only_one(at) && is_agreed(ctx, at) && match_head(ctx, at) &&
	       find_cluster(at->port.table, at->outcome.route, &choice->cluster) &&
	       !kmesh_pick(choice) && kmesh_remember_peer(ctx, &at->service, choice);
}

static __always_inline bool has_gate(struct bpf_sock_addr *ctx)
{
	struct kmesh_gate_key key = {.netns = bpf_get_netns_cookie(ctx)};

	return bpf_map_lookup_elem(&gates, &key) != NULL;
}

/* The first bytes are there: where to with them. */
static __always_inline int connect_deferred(struct bpf_sock_addr *ctx,
					    const struct kmesh_frontend_key *service,
					    const struct kmesh_mem_ptr *message)
{
	struct kmesh_deferred *at = deferred_of(ctx, BPF_SK_STORAGE_GET_F_CREATE);
	struct kmesh_choice choice = {};
	bool straight = false;

	if (at) {
		at->service = *service;
		straight = copy(at, message) && kmesh_find_http_port(service, &at->port) &&
			   go_straight(ctx, at, &choice);
		forget_deferred(ctx);
	}
	if (!straight)
		return kmesh_route_connect4(ctx, service);
	kmesh_forget_client(ctx);
	kmesh_count(KMESH_TAKEN);
	return kmesh_answer4(ctx, KMESH_REWRITE, &choice);
}

static __always_inline int connect4(struct bpf_sock_addr *ctx)
{
	struct kmesh_frontend_key service = {.port = ctx->user_port, .protocol = ctx->protocol};
	struct kmesh_mem_ptr message = {};

	kmesh_map_ip4(service.address, ctx->user_ip4);
	if (service.protocol != KMESH_IPPROTO_TCP || !bpf_map_lookup_elem(&http_ports, &service))
		return kmesh_route_connect4(ctx, &service);
	if (kmesh_message(ctx, &message))
		return connect_deferred(ctx, &service, &message);
	if (has_gate(ctx) && kmesh_defer(ctx))
		return 1;
	return kmesh_route_connect4(ctx, &service);
}

KMESH_HOOK("cgroup/connect4", connect4, connect4)
