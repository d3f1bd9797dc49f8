// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests, one by one. What a client sends at once, if that is one whole plain request and nothing
 * before it is unanswered, goes to the endpoint that its route chooses; all else goes to the gate,
 * where the connection leads.
 *
 * Reading and matching are global functions, called for one piece of the head after the other: the
 * verifier walks each once by itself, in place of thousands of times.
 */
#include <kmesh/client.h>
#include <kmesh/flow_control.h>
#include <kmesh/http/maps.h>
#include <kmesh/http/pieces.h>
#include <kmesh/order.h>
#include <kmesh/respond.h>
#include <kmesh/route.h>
#include <kmesh/servers.h>
#include <kmesh/stat.h>
#include <kmesh/stream.h>
#include <kmesh/underway.h>

char LICENSE[] SEC("license") = "GPL";

#define ATTEMPTS 8 /* to get an idle connection that others do not get first */

static __always_inline int pass(__u32 why)
{
	kmesh_count(why);
	return SK_PASS;
}

static __always_inline struct kmesh_slot *slot_of(const struct kmesh_client *client)
{
	struct kmesh_slot *slot = bpf_map_lookup_elem(&gate_slots, &client->slot);

	return slot && slot->cookie == client->cookie ? slot : NULL;
}

/* Where in the client's stream the message begins: what went over TCP, whoever let it. */
static __always_inline __u32 position(const struct kmesh_client *client)
{
	return kmesh_write_seq(client->sock) - client->first;
}

static __always_inline bool is_paused(void)
{
	const __u32 only = 0;
	struct kmesh_gate_settings *settings = bpf_map_lookup_elem(&gate_settings, &only);

	return !settings || settings->paused;
}

static __always_inline bool is_logged(void)
{
	const __u32 only = 0;
	struct kmesh_gate_settings *settings = bpf_map_lookup_elem(&gate_settings, &only);

	return settings && settings->logs;
}

static __always_inline bool is_idle(const struct kmesh_client *client,
				    const struct kmesh_slot *slot)
{
	return slot->open && slot->taken == slot->done && slot->answered == position(client) &&
	       slot->published != client->passed_at;
}

/* Not static: what is, the verifier walks again at each call. */
__noinline int kmesh_read_piece(struct sk_msg_md *msg)
{
	const struct kmesh_http_input in = {.data = msg->data, .end = msg->data_end};
	struct kmesh_client *client = kmesh_client_of(msg);
	const struct kmesh_http_grammar *grammar;

	grammar = client ? kmesh_http_grammar_of(client->port.grammar) : NULL;
	if (!grammar)
		return KMESH_HTTP_NO_TABLE;
	if (!client->reading.at)
		kmesh_http_begin(grammar, &client->head, &client->reading);
	return kmesh_http_read(&in, grammar, &client->head, &client->reading);
}

__noinline int kmesh_match_piece(struct sk_msg_md *msg)
{
	const struct kmesh_http_input in = {.data = msg->data, .end = msg->data_end};
	struct kmesh_client *client = kmesh_client_of(msg);
	int verdict = KMESH_HTTP_MORE;
	void *graph;

	graph = client ? kmesh_http_graph_of(client->port.graph) : NULL;
	if (!graph)
		return KMESH_HTTP_NO_TABLE;
	if (!client->walk.steps)
		verdict = kmesh_http_enter(&client->head, graph, &client->walk);
	if (verdict != KMESH_HTTP_MORE)
		return verdict;
	return kmesh_http_step(&in, &client->head, graph, &client->walk, &client->outcome);
}

static __always_inline int read_head(struct sk_msg_md *msg, struct kmesh_client *client)
{
	client->reading.at = 0;
	return kmesh_http_pieces(kmesh_read_piece, KMESH_HTTP_READ_PIECES, msg);
}

static __always_inline int match_head(struct sk_msg_md *msg, struct kmesh_client *client)
{
	client->walk.steps = 0;
	return kmesh_http_pieces(kmesh_match_piece, KMESH_HTTP_MATCH_PIECES, msg);
}

/* An idle connection to the endpoint that has room: its number, taken from among the idle ones. */
static __always_inline bool take_idle(__u32 number, __u32 size, __u32 *id)
{
	struct kmesh_pool *pool = bpf_map_lookup_elem(&pools, &number);
	struct kmesh_idle_key key = {.pool = number};
	bool skipped = false;

	if (!pool)
		return false;
	key.number = pool->first;
	for (int i = 0; i < ATTEMPTS; i++, key.number++) {
		struct kmesh_upstream *upstream;
		struct kmesh_idle *found;

		if ((__s32)(pool->next - key.number) <= 0)
			return false;
		found = bpf_map_lookup_elem(&idle, &key);
		if (found) {
			*id = found->upstream;
			upstream = bpf_map_lookup_elem(&gate_upstreams, id);
			if (!upstream || !kmesh_has_room(upstream->sock, size))
				skipped = true;
			else if (!bpf_map_delete_elem(&idle, &key))
				return true;
		}
		if (!skipped)
			pool->first = key.number + 1;
	}
	return false;
}

static __always_inline bool is_at(const struct kmesh_held *held,
				  const struct kmesh_endpoint *endpoint)
{
	return held->port == endpoint->port && held->address[3] == endpoint->address[3] &&
	       held->address[2] == endpoint->address[2] &&
	       held->address[1] == endpoint->address[1] && held->address[0] == endpoint->address[0];
}

/* The connection is still there, and the client's. */
static __always_inline struct kmesh_upstream *held_by(const struct kmesh_client *client,
						      const struct kmesh_held *held)
{
	struct kmesh_upstream *upstream;

	if (!held->cookie)
		return NULL;
	upstream = bpf_map_lookup_elem(&gate_upstreams, &held->upstream);
	if (!upstream || upstream->cookie != held->cookie || upstream->recalled ||
	    upstream->client != client->cookie)
		return NULL;
	return upstream;
}

/* The client's own connection to the endpoint: nobody else can take it meanwhile. */
static __always_inline bool find_held(const struct kmesh_client *client,
				      const struct kmesh_endpoint *endpoint, __u32 size, __u32 *id)
{
	for (int i = 0; i < KMESH_HELD; i++) {
		const struct kmesh_held *held = &client->held[i];
		struct kmesh_upstream *upstream;

		if (!is_at(held, endpoint))
			continue;
		upstream = held_by(client, held);
		if (!upstream || !kmesh_has_room(upstream->sock, size))
			continue;
		*id = held->upstream;
		return true;
	}
	return false;
}

/* One that has just been taken stays the client's, if there is a place for it. */
static __always_inline bool hold(struct kmesh_client *client, const struct kmesh_endpoint *endpoint,
				 __u32 id)
{
	struct kmesh_upstream *upstream = bpf_map_lookup_elem(&gate_upstreams, &id);

	if (!upstream || upstream->recalled)
		return false;
	for (int i = 0; i < KMESH_HELD; i++) {
		struct kmesh_held *held = &client->held[i];

		if (held_by(client, held))
			continue;
		kmesh_copy_address(held->address, endpoint->address);
		held->port = endpoint->port;
		held->upstream = id;
		held->cookie = upstream->cookie;
		return true;
	}
	return false;
}

static __always_inline bool find_upstream(const struct kmesh_client *client,
					  const struct kmesh_endpoint *endpoint, __u32 size,
					  __u32 *id)
{
	struct kmesh_pool_key key = {.netns = client->netns, .port = endpoint->port};
	struct kmesh_pool_number *found;
	__u32 number;

	kmesh_copy_address(key.address, endpoint->address);
	found = bpf_map_lookup_elem(&pool_numbers, &key);
	if (!found)
		return false;
	number = found->pool;
	if (bpf_map_lookup_elem(&pool_numbers, &key) != found)
		return false;
	return take_idle(number, size, id);
}

/* The choice is made: the gate keeps to it, or the shares of endpoints would be others. */
static __always_inline int leave_to_gate(const struct kmesh_client *client, struct kmesh_slot *slot,
					 const struct kmesh_endpoint *endpoint)
{
	slot->choice_at = position(client);
	kmesh_copy_address(slot->choice_address, endpoint->address);
	slot->choice_port = endpoint->port;
	slot->chosen += 1;
	return pass(KMESH_NO_UPSTREAM);
}

/* Into the queue of an endpoint of this node, or out by the connection to it. */
static __always_inline bool redirect(struct sk_msg_md *msg, struct kmesh_upstream *upstream)
{
	__u64 cookie = kmesh_open_server(upstream);

	if (cookie && bpf_msg_redirect_hash(msg, &sockets, &cookie, BPF_F_INGRESS) == SK_PASS) {
		upstream->shortened += 1;
		kmesh_count(KMESH_REQUESTS_SHORTENED);
		return true;
	}
	cookie = upstream->cookie;
	if (bpf_msg_redirect_hash(msg, &upstreams, &cookie, 0) != SK_PASS)
		return false; /* it has just been closed */
	upstream->sent += msg->size;
	return true;
}

static __always_inline bool is_head(const struct sk_msg_md *msg)
{
	const __u8 *data = msg->data;

	return data + 4 <= (const __u8 *)msg->data_end && data[0] == 'H' && data[1] == 'E' &&
	       data[2] == 'A' && data[3] == 'D';
}

/* The message goes elsewhere: the gate has nothing to answer. */
static __always_inline void not_passed(struct kmesh_client *client, const struct kmesh_slot *slot)
{
	client->passed_at = slot->published - 1;
}

static __always_inline int send_to(struct sk_msg_md *msg, struct kmesh_client *client,
				   struct kmesh_slot *slot, __u32 id, __u32 flags)
{
	struct kmesh_upstream *upstream = bpf_map_lookup_elem(&gate_upstreams, &id);

	if (!upstream)
		return pass(KMESH_QUEUE_FULL);
	upstream->client = client->cookie;
	upstream->slot = client->slot;
	if (is_head(msg))
		flags |= KMESH_REQUEST_HEAD;
	upstream->flags = flags;
	kmesh_describe_request(msg, upstream, client->stat);
	if (is_logged())
		kmesh_keep_head(msg, id);
	if (!redirect(msg, upstream))
		return pass(KMESH_QUEUE_FULL);
	not_passed(client, slot);
	slot->upstream = id;
	kmesh_order(); /* who reads that it is taken reads which has it */
	slot->taken += 1;
	kmesh_count(KMESH_TAKEN);
	kmesh_count_taken(client->stat, msg->size);
	return SK_PASS;
}

/* Its cluster, if the kernel may choose the endpoint; or its answer, in the client's state. */
static __always_inline __u32 find_route(struct kmesh_client *client, __u32 index, __u64 *cluster)
{
	struct kmesh_route_key key = {.table = client->port.table, .route = index};
	struct kmesh_route *route;
	__u32 kind;

	if (index == KMESH_HTTP_NO_ROUTE || index == KMESH_HTTP_NO_VHOST) {
		client->stat = KMESH_STAT_UNROUTED;
		client->answer = KMESH_ANSWER_NO_ROUTE;
		return KMESH_ROUTE_ANSWER;
	}
	route = bpf_map_lookup_elem(&http_routes, &key);
	if (!route)
		return 0;
	kind = route->kind;
	client->stat = route->stat;
	client->answer = route->answer;
	if (kind == KMESH_ROUTE_FORWARD)
		*cluster = kmesh_route_cluster(route);
	else
		kind = route->answer ? KMESH_ROUTE_ANSWER : 0;
	return bpf_map_lookup_elem(&http_routes, &key) == route ? kind : 0;
}

/* A response to HEAD is without its body, and one for the access log is the gate's. */
static __always_inline int answer(struct sk_msg_md *msg, struct kmesh_client *client,
				  const struct kmesh_slot *slot)
{
	int verdict;

	if (!kmesh_answers_here() || is_logged() || is_head(msg) ||
	    !kmesh_respond(msg, client, slot, &verdict))
		return pass(KMESH_NOT_ROUTED);
	not_passed(client, slot);
	return verdict;
}

static __always_inline int send_request(struct sk_msg_md *msg, struct kmesh_client *client,
					struct kmesh_slot *slot)
{
	struct kmesh_choice choice = {};
	__u32 id = 0, flags = KMESH_REQUEST_HELD, kind;

	kind = find_route(client, client->outcome.route, &choice.cluster);
	if (kind == KMESH_ROUTE_ANSWER)
		return answer(msg, client, slot);
	if (!kind || kmesh_pick_in_turn(&choice, client->turn++))
		return pass(KMESH_NOT_ROUTED);
	if (!find_held(client, &choice.endpoint, msg->size, &id)) {
		if (!find_upstream(client, &choice.endpoint, msg->size, &id))
			return leave_to_gate(client, slot, &choice.endpoint);
		if (!hold(client, &choice.endpoint, id))
			flags = 0;
	}
	return send_to(msg, client, slot, id, flags);
}

static __always_inline int take(struct sk_msg_md *msg, struct kmesh_client *client,
				struct kmesh_slot *slot)
{
	__u32 size = msg->size;

	if (is_paused())
		return pass(KMESH_PASSED_PAUSED);
	if (!kmesh_find_http_port(&client->service, &client->port))
		return pass(KMESH_NOT_ROUTED);
	if (size > KMESH_HTTP_HEAD_MAX)
		size = KMESH_HTTP_HEAD_MAX;
	if (bpf_msg_pull_data(msg, 0, size, 0))
		return pass(KMESH_NOT_WHOLE);
	if (read_head(msg, client) != KMESH_HTTP_OK)
		return pass(KMESH_NOT_WHOLE);
	if (client->head.seen & KMESH_HTTP_NOT_PLAIN ||
	    client->head.length + client->head.content_length != msg->size)
		return pass(KMESH_NOT_WHOLE);
	if (match_head(msg, client) != KMESH_HTTP_OK)
		return pass(KMESH_NOT_ROUTED);
	return send_request(msg, client, slot);
}

SEC("sk_msg")
int kmesh_read_request(struct sk_msg_md *msg)
{
	struct kmesh_client *client = kmesh_client_of(msg);
	struct kmesh_slot *slot;
	bool idle;

	slot = client ? slot_of(client) : NULL;
	if (!slot)
		return pass(KMESH_NOT_IDLE);
	idle = is_idle(client, slot);
	client->passed_at = slot->published; /* what does not pass takes it back */
	if (slot->taken != slot->done)
		slot->pipelines = 1;
	else if (kmesh_comes_before_home(slot))
		slot->doubted_ns = slot->homed_ns;
	else if (idle)
		return take(msg, client, slot);
	return pass(KMESH_NOT_IDLE);
}

/*
 * Where the kernel counts for FIONREAD only what a verdict program let through (6.6.128, 6.12.75,
 * 6.18.14 and later). Attached only there.
 */
SEC("sk_skb/stream_verdict")
int kmesh_let_through(struct __sk_buff *skb)
{
	return kmesh_pass_once(skb);
}
