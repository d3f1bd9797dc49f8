// SPDX-License-Identifier: GPL-2.0-only
/* Where a request goes: the same tables and the same code as the kernel's. */
#include "answers.h"
#include "gate.h"
#include "govern.h"
#include "head.h"
#include "maps.h"
#include "normalise.h"
#include "waypoint.h"
#include "stat.h"
#include <kmesh/balance.h>
#include <kmesh/gate.h>
#include <kmesh/http/maps.h>
#include <kmesh/http/match.h>
#include <kmesh/less_busy.h>
#include <kmesh/route.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define CACHED	    4096
#define NO_WAYPOINT "it takes a waypoint, and there is none"
#define REASON_ROOM 256

/* Grammars, graphs and texts never change: mapped once, by their number. */
struct cached {
	struct cached *next;
	uint64_t number;
	uint64_t used;
	const void *data;
	size_t size;
};

enum { GRAMMARS, GRAPHS, TEXTS, RINGS, KINDS };

static struct cached *cached[KINDS][CACHED];

uint32_t gate_random(void)
{
	static uint64_t state[2];
	uint64_t a, b;

	if (!state[0] && getrandom(state, sizeof(state), 0) != sizeof(state))
		abort();
	a = state[0]; /* xorshift128+: S. Vigna, 2014 */
	b = state[1];
	state[0] = b;
	a ^= a << 23;
	state[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
	return (state[1] + b) >> 32;
}

static int inner_map(const void *outer, uint64_t number, uint32_t *count)
{
	uint32_t *id = gate_map_lookup(outer, &number);
	union bpf_attr attributes = {};
	struct bpf_map_info info = {};
	int fd;

	if (!id)
		return -1;
	attributes.map_id = *id;
	fd = gate_bpf(BPF_MAP_GET_FD_BY_ID, &attributes);
	if (fd < 0)
		return -1;
	attributes = (union bpf_attr){};
	attributes.info.bpf_fd = fd;
	attributes.info.info_len = sizeof(info);
	attributes.info.info = (uint64_t)(uintptr_t)&info;
	if (gate_bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes)) {
		close(fd);
		return -1;
	}
	*count = info.max_entries;
	return fd;
}

static const void *content(int which, uint64_t number, size_t each, size_t *size)
{
	const void *const outers[KINDS] = {&http_grammars, &http_graphs, &http_texts, &http_rings};
	struct cached **bucket = &cached[which][number % CACHED], *entry;
	uint32_t count;
	void *data;
	int fd;

	for (entry = *bucket; entry; entry = entry->next) {
		if (entry->number == number) {
			entry->used = loop_now;
			*size = entry->size;
			return entry->data;
		}
	}
	fd = inner_map(outers[which], number, &count);
	if (fd < 0)
		return NULL;
	*size = each * count;
	data = mmap(NULL, *size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (data == MAP_FAILED)
		return NULL;
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		abort();
	*entry = (struct cached){
		.next = *bucket, .number = number, .used = loop_now, .data = data, .size = *size};
	*bucket = entry;
	return data;
}

/* What nobody has asked for in a while may be gone from the kernel's tables. */
void routes_tick(void)
{
	for (int i = 0; i < KINDS * CACHED; i++) {
		struct cached **at = &cached[i / CACHED][i % CACHED];

		while (*at) {
			struct cached *entry = *at;

			if (loop_now - entry->used < GATE_IDLE_SECONDS * 1000) {
				at = &entry->next;
				continue;
			}
			*at = entry->next;
			munmap((void *)entry->data, entry->size);
			free(entry);
		}
	}
}

static void stop(struct route *route, enum route_kind kind, int status, const char *reason)
{
	route->kind = kind;
	route->status = status;
	route->reason = reason;
}

static void stop_with(struct route *route, int status, const char *body)
{
	stop(route, ROUTE_ANSWER, status, NULL);
	route->reply.body = body;
	route->reply.body_size = strlen(body);
}

/*
 * A head that is not plainly right: a waypoint may know better. Without one, what cannot be
 * understood whole ends the connection.
 */
static void refuse(struct route *route, int verdict)
{
	switch (verdict) {
	case KMESH_HTTP_INCOMPLETE:
		route->kind = ROUTE_INCOMPLETE;
		return;
	case KMESH_HTTP_NO_TABLE:
		stop(route, ROUTE_REFUSE, 503, "the service has no routes at this moment");
		return;
	}
	route->needs_waypoint = true;
	switch (verdict) {
	case KMESH_HTTP_TOO_LONG:
		stop(route, ROUTE_REFUSE, 431, "the head is longer than 8 KiB");
		return;
	case KMESH_HTTP_MANY_FIELDS:
		stop(route, ROUTE_REFUSE, 431, "the head has more than 100 header lines");
		return;
	case KMESH_HTTP_UNDECIDED:
	case KMESH_HTTP_VERSION:
	case KMESH_HTTP_BAD_METHOD:
	case KMESH_HTTP_BAD_TARGET:
	case KMESH_HTTP_DOT_SEGMENT:
	case KMESH_HTTP_ESCAPE:
	case KMESH_HTTP_FOLDED:
	case KMESH_HTTP_TWICE:
	case KMESH_HTTP_BAD_CONNECTION: /* whose headers would have to be taken away */
		stop(route, ROUTE_REFUSE, 503, NO_WAYPOINT);
		return;
	default:
		stop(route, ROUTE_REFUSE, 400, "the head is not as RFC 9112 has it");
	}
}

static bool port_of(const struct session *session, struct kmesh_http_port *port)
{
	struct kmesh_frontend_key key = {.port = session->service_port, .protocol = IPPROTO_TCP};
	struct kmesh_http_port *found;

	memcpy(key.address, session->service, sizeof(key.address));
	found = gate_map_lookup(&http_ports, &key);
	if (found)
		*port = *found;
	return found;
}

static int match(const struct kmesh_http_port *port, const char *head, size_t length,
		 struct kmesh_http_head *parsed, struct kmesh_http_outcome *outcome)
{
	struct kmesh_http_input in = {.data = (const __u8 *)head};
	const struct kmesh_http_grammar *grammar;
	kmesh_http_graph graph;
	size_t size;
	int verdict;

	in.end = in.data + (length < KMESH_HTTP_HEAD_MAX ? length : KMESH_HTTP_HEAD_MAX);
	grammar = content(GRAMMARS, port->grammar, sizeof(*grammar), &size);
	graph.cells = content(GRAPHS, port->graph, sizeof(*graph.cells), &size);
	if (!grammar || !graph.cells)
		return KMESH_HTTP_NO_TABLE;
	graph.count = size / sizeof(*graph.cells);
	verdict = kmesh_http_parse(&in, grammar, parsed);
	if (verdict == KMESH_HTTP_INCOMPLETE && length >= KMESH_HTTP_HEAD_MAX)
		return KMESH_HTTP_TOO_LONG;
	return verdict ? verdict : kmesh_http_match(&in, parsed, &graph, outcome);
}

/*
 * As if it said HTTP/1.1: KMESH_HTTP_OK, or KMESH_HTTP_INCOMPLETE while its first line is; else it
 * is of no version that the tables could be asked about.
 */
static int modernise(char *copy, const char *head, size_t length)
{
	static const char old[] = " HTTP/1.0\r\n";
	const char *end = memchr(head, '\n', length);
	size_t line = end ? (size_t)(end + 1 - head) : length, size = sizeof(old) - 1;

	/* The line's end may not be there yet: the tables have stopped at the 0. */
	if (!end)
		size -= line && head[line - 1] == '\r' ? 1 : 2;
	if (line < size || memcmp(head + line - size, old, size))
		return KMESH_HTTP_VERSION;
	if (!end)
		return KMESH_HTTP_INCOMPLETE;
	memcpy(copy, head, length);
	copy[line - sizeof("0\r\n") + 1] = '1';
	return KMESH_HTTP_OK;
}

/*
 * HTTP/1.0 is routed as HTTP/1.1 is, where no waypoint is asked. Its length is no other than the
 * one that it says, as RFC 9112 (6.1) takes chunks in it for a fault.
 */
static int match_old_too(const struct kmesh_http_port *port, const char *head, size_t length,
			 struct kmesh_http_head *parsed, struct kmesh_http_outcome *outcome)
{
	static char copy[KMESH_HTTP_HEAD_MAX];
	int verdict = match(port, head, length, parsed, outcome);

	if (length > sizeof(copy))
		length = sizeof(copy);
	if (verdict != KMESH_HTTP_VERSION || port->waypoint || waypoint_path()[0])
		return verdict;
	verdict = modernise(copy, head, length);
	if (verdict)
		return verdict;
	verdict = match(port, copy, length, parsed, outcome);
	if (!verdict && parsed->seen & KMESH_HTTP_BIT(KMESH_HTTP_SEEN_CHUNKED))
		return KMESH_HTTP_TWO_LENGTHS;
	return verdict;
}

bool route_pick(uint64_t cluster, struct kmesh_endpoint *endpoint)
{
	struct kmesh_choice choice = {.cluster = cluster};

	if (kmesh_pick(&choice))
		return false;
	*endpoint = choice.endpoint;
	return true;
}

static __s32 busy(const void *whose, const struct kmesh_endpoint *endpoint)
{
	return busy_at((struct space *)whose, endpoint);
}

/* As the kernel would, but for turns. */
static bool pick(uint64_t cluster, struct space *space, struct kmesh_endpoint *endpoint)
{
	struct kmesh_choice choice = {.cluster = cluster};

	if (kmesh_pick(&choice))
		return false;
	kmesh_pick_less_busy(&choice, busy, space);
	*endpoint = choice.endpoint;
	return true;
}

static void no_endpoint(struct route *route)
{
	stop_with(route, 503, "no healthy upstream");
	route->reason = "no healthy endpoint";
}

/* What the gate governs the kernel's tables do not have. */
static void choose(struct session *session, struct route *route)
{
	route->kind = ROUTE_ENDPOINT;
	if (pick(route->cluster, session->space, &route->endpoint))
		return;
	route->governed = governed_of(session->space, route->cluster);
	if (!route->governed || !elect(route->governed, NULL, &route->endpoint))
		no_endpoint(route);
}

static bool is_same(const struct kmesh_endpoint *one, const struct kmesh_endpoint *other)
{
	return one->port == other->port &&
	       !memcmp(one->address, other->address, sizeof(one->address));
}

/* As often as Istio's default retries look for one that has not failed. */
#define LOOKS 5

/* Blindly: who refuses connections has none, and would be the least busy each time. */
static bool pick_another(uint64_t cluster, struct kmesh_endpoint *endpoint)
{
	const struct kmesh_endpoint failed = *endpoint;

	for (int i = 0; i < LOOKS; i++)
		if (!route_pick(cluster, endpoint))
			return false;
		else if (!is_same(endpoint, &failed))
			return true;
	return true; /* there may be no other */
}

bool route_again(struct route *route)
{
	return route->governed ? elect(route->governed, &route->endpoint, &route->endpoint)
			       : pick_another(route->cluster, &route->endpoint);
}

/* Waypoints have no such row. */
uint32_t route_patience(const struct route *route)
{
	const struct kmesh_http_cluster_key key = {.cluster = route->cluster};
	const struct kmesh_http_cluster *found =
		route->cluster ? gate_map_lookup(&http_clusters, &key) : NULL;

	return found && found->connect_ms ? found->connect_ms : GATE_DIAL_MS;
}

/* The kernel chose an endpoint for the request that starts there, and had no connection to it. */
static bool kernel_has_chosen(struct session *session, uint32_t at, struct route *route)
{
	const struct kmesh_slot *slot = &slots_shared[session->slot];

	if (slot->chosen == session->chosen)
		return false;
	session->chosen = slot->chosen;
	if (slot->choice_at != at)
		return false;
	memcpy(route->endpoint.address, slot->choice_address, sizeof(slot->choice_address));
	route->endpoint.port = slot->choice_port;
	route->kind = ROUTE_ENDPOINT;
	return true;
}

/* A text of the table's, which has all of it; NULL: the table is being replaced. */
static const char *text_at(const struct kmesh_http_port *port, __u32 at, __u32 length)
{
	const char *texts;
	size_t size;

	if (!length)
		return "";
	texts = content(TEXTS, port->table, sizeof(__u64), &size);
	if (!texts || at > size || length > size - at)
		return NULL;
	return texts + at;
}

static void answer(struct route *route, const struct kmesh_http_port *port,
		   const struct kmesh_route *row, const char *head,
		   const struct kmesh_http_head *parsed)
{
	static const char nothing[4];
	const char *text = text_at(port, row->text, row->text_size);

	if (!text) {
		stop(route, ROUTE_ANSWER, 503, "the route is being replaced");
		return;
	}
	stop(route, ROUTE_ANSWER, row->status, NULL);
	if (row->kind == KMESH_ROUTE_REDIRECT) {
		route->reply.location_size =
			redirect_write(row, text, head, parsed, &route->reply.location);
		return;
	}
	route->reply.body = row->text_size ? text : NULL;
	route->reply.body_size = row->text_size;
	if (row->status / 100 == 3 || row->status == 201) /* as Envoy has it */
		route->reply.location_size =
			redirect_write(row, nothing, head, parsed, &route->reply.location);
}

/* Whether the client may; else the request is answered. */
static bool may(const struct session *session, const struct kmesh_http_port *port,
		const struct kmesh_route *row, struct route *route)
{
	const char *ruling = text_at(port, row->ruling, row->ruling_size), *reason = NULL;

	if (!row->ruling_size)
		return true;
	if (!ruling) {
		stop(route, ROUTE_ANSWER, 503, "the route is being replaced");
		return false;
	}
	if (admit(session, ruling, row->ruling_size, &reason))
		return true;
	stop_with(route, 403, "RBAC: access denied");
	route->reason = reason;
	return false;
}

/* What comes before a route's action; true: the request is answered. */
static bool govern(const struct session *session, const struct kmesh_http_port *port,
		   const struct kmesh_route *row, struct route *route)
{
	bool limit_first = row->flags & KMESH_ROUTE_LIMIT_FIRST;

	if (!may(session, port, row, route))
		return true;

	for (int i = 0; i < 2; i++) {
		if ((i == 0) == limit_first) {
			if (limit_exceeded(row)) {
				stop_with(route, row->limit_status, "local_rate_limited");
				return true;
			}
		} else if (limit_aborts(row)) {
			stop_with(route, row->abort_status, "fault filter abort");
			return true;
		}
	}
	return false;
}

/* By what the route says of the request, where the cluster has a ring. */
static bool choose_alike(struct session *session, const struct kmesh_http_port *port,
			 const struct kmesh_route *row, const char *head,
			 const struct kmesh_http_head *parsed, struct route *route)
{
	const struct kmesh_http_cluster_key key = {.cluster = route->cluster};
	const struct kmesh_http_cluster *cluster;
	size_t ring_size, texts_size = 0;
	const uint64_t *ring;
	const char *texts;
	__be32 source[4] = {}; /* of a namespace without addresses: it is one source all the same */
	bool found;
	uint64_t hash;

	if (!row->hash[0])
		return false;
	cluster = gate_map_lookup(&http_clusters, &key);
	ring = cluster ? content(RINGS, cluster->ring, sizeof(*ring), &ring_size) : NULL;
	if (!ring)
		return false;
	texts = content(TEXTS, port->table, sizeof(__u64), &texts_size);
	space_source(session->space, session->service, source);
	if (!hash_request(row, texts, texts ? texts_size : 0, head, parsed, source, &hash))
		return false;
	route->governed = governed_of(session->space, route->cluster);
	found = route->governed
			? elect_alike(route->governed, ring, ring_size, hash, &route->endpoint)
			: hash_choose(ring, ring_size, hash, &route->endpoint);
	if (found)
		route->kind = ROUTE_ENDPOINT;
	return found;
}

/* With the route's own reason, a string as long as a header's value may be here. */
static const char *why_waypoint(const struct kmesh_http_port *port, const struct kmesh_route *row)
{
	const char *text = text_at(port, row->text, row->text_size);
	bool is_good = text && row->text_size && row->text_size <= REASON_ROOM &&
		       !text[row->text_size - 1];

	return is_good ? text : NO_WAYPOINT;
}

/* As it stands, and where Envoy would rewrite its path, so rewritten. */
static int match_normalised(const struct kmesh_http_port *port, char *head, size_t length,
			    struct kmesh_http_head *parsed, struct kmesh_http_outcome *outcome)
{
	int verdict = match_old_too(port, head, length, parsed, outcome);

	if (verdict != KMESH_HTTP_DOT_SEGMENT && verdict != KMESH_HTTP_ESCAPE)
		return verdict;
	switch (head_judge(head, length)) {
	case HEAD_MORE:
		return length < KMESH_HTTP_HEAD_MAX ? KMESH_HTTP_INCOMPLETE : KMESH_HTTP_TOO_LONG;
	case HEAD_PLAIN:
		if (normalise(head, length))
			return match_old_too(port, head, length, parsed, outcome);
		return verdict;
	default:
		return verdict;
	}
}

static void decide(struct session *session, const struct kmesh_http_port *port, char *head,
		   size_t length, uint32_t at, struct route *route)
{
	struct kmesh_http_outcome outcome;
	struct kmesh_route_key key = {};
	struct kmesh_http_head parsed;
	struct kmesh_route *found, row;
	int verdict;

	route->stat = KMESH_STAT_UNROUTED;
	if (!port->table) { /* the loader found no room for it */
		route->needs_waypoint = true;
		stop(route, ROUTE_REFUSE, 503, "there is no room for the service's routes");
		return;
	}
	verdict = match_normalised(port, head, length, &parsed, &outcome);
	if (verdict) {
		if (verdict != KMESH_HTTP_INCOMPLETE)
			stat_verdict(verdict);
		refuse(route, verdict);
		return;
	}
	if (outcome.route == KMESH_HTTP_NO_ROUTE || outcome.route == KMESH_HTTP_NO_VHOST) {
		stop(route, ROUTE_ANSWER, 404, NULL);
		return;
	}
	route->stat = KMESH_STAT_OTHER;
	key.table = port->table;
	key.route = outcome.route;
	found = gate_map_lookup(&http_routes, &key);
	if (!found) {
		stop(route, ROUTE_ANSWER, 503, "the route is being replaced");
		return;
	}
	route->stat = found->stat;
	row = *found; /* other look-ups come before its last use */
	switch (row.kind) {
	case KMESH_ROUTE_ANSWER:
	case KMESH_ROUTE_REDIRECT:
		if (!govern(session, port, &row, route))
			answer(route, port, &row, head, &parsed);
		break;
	case KMESH_ROUTE_FORWARD:
	case KMESH_ROUTE_GOVERNED:
		if (govern(session, port, &row, route))
			break;
		route->cluster = kmesh_route_cluster(&row);
		if (!kernel_has_chosen(session, at, route) &&
		    !choose_alike(session, port, &row, head, &parsed, route))
			choose(session, route);
		break;
	default:
		route->needs_waypoint = true;
		stop(route, ROUTE_ANSWER, 503, why_waypoint(port, &row));
	}
}

void route_request(struct session *session, char *head, size_t length, uint32_t at,
		   struct route *route)
{
	struct kmesh_http_port port;

	if (!port_of(session, &port)) {
		route->stat = KMESH_STAT_UNROUTED;
		stat_verdict(KMESH_HTTP_NO_TABLE);
		refuse(route, KMESH_HTTP_NO_TABLE);
		return;
	}
	decide(session, &port, head, length, at, route);
	if (route->needs_waypoint)
		waypoint_route(route, port.waypoint, head, length);
}
