// SPDX-License-Identifier: GPL-2.0-only
/*
 * Connections to waypoints. Each is one client's alone, because its first bytes name that client;
 * it is kept for the client's next request. A port's own waypoint has instances, which are dialled
 * in the workload's namespace; the node's listens at a Unix socket.
 */
#include "waypoint.h"
#include "exchange.h"
#include "head.h"
#include <arpa/inet.h>
#include <errno.h>
#include <kmesh/http/types.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DEAD_SECONDS 5
#define DEAD	     64 /* remembered at a time */
#define LOOKS	     32 /* for an instance that is not dead */

static struct sockaddr_un node = {.sun_family = AF_UNIX};
static uint64_t node_changes;

struct dead {
	const struct space *space;
	struct kmesh_endpoint endpoint;
	uint64_t until;
	uint64_t order; /* the later it failed, the higher */
};

static struct dead dead[DEAD];
static uint64_t failures;

bool waypoint_set(const char *path)
{
	if (strlen(path) >= sizeof(node.sun_path))
		return false;
	if (strcmp(node.sun_path, path))
		node_changes++;
	strcpy(node.sun_path, path);
	return true;
}

const char *waypoint_path(void)
{
	return node.sun_path;
}

void waypoint_route(struct route *route, uint64_t number, const char *head, size_t length)
{
	if (!number && !node.sun_path[0])
		return; /* what the route says already: there is none */
	route->cluster = number;
	switch (head_judge(head, length)) {
	case HEAD_PLAIN:
		route->kind = ROUTE_WAYPOINT;
		break;
	case HEAD_MORE:
		route->kind = length < KMESH_HTTP_HEAD_MAX ? ROUTE_INCOMPLETE : ROUTE_TUNNEL;
		break;
	case HEAD_UNSURE:
		route->kind = ROUTE_TUNNEL;
	}
}

static bool is_same(const struct kmesh_endpoint *one, const struct kmesh_endpoint *other)
{
	return one->port == other->port &&
	       !memcmp(one->address, other->address, sizeof(one->address));
}

static struct dead *find_dead(const struct space *space, const struct kmesh_endpoint *endpoint)
{
	for (int i = 0; i < DEAD; i++)
		if (dead[i].until > loop_now && dead[i].space == space &&
		    is_same(&dead[i].endpoint, endpoint))
			return &dead[i];
	return NULL;
}

void waypoint_failed(const struct exchange *exchange)
{
	const struct space *space = exchange->session->space;
	struct dead *known = find_dead(space, &exchange->route.endpoint);

	failures++;
	*(known ? known : &dead[failures % DEAD]) =
		(struct dead){.space = space,
			      .endpoint = exchange->route.endpoint,
			      .until = loop_now + DEAD_SECONDS * 1000,
			      .order = failures};
}

void waypoint_reached(const struct exchange *exchange)
{
	struct dead *known = find_dead(exchange->session->space, &exchange->route.endpoint);

	if (known)
		known->until = 0;
}

/* An instance that takes connections, or the one that has failed first: trying beats refusing. */
static bool choose(struct exchange *exchange)
{
	struct route *route = &exchange->route;
	uint64_t best = UINT64_MAX;

	route->endpoint = (struct kmesh_endpoint){};
	if (!route->cluster)
		return node.sun_path[0];
	for (int i = 0; i < LOOKS && best; i++) {
		struct kmesh_endpoint drawn;
		const struct dead *known;

		if (!route_pick(route->cluster, &drawn))
			return false;
		known = find_dead(exchange->session->space, &drawn);
		if (known && known->order >= best)
			continue;
		best = known ? known->order : 0;
		route->endpoint = drawn;
	}
	return route->endpoint.port;
}

static uint64_t place_of(const struct route *route)
{
	return route->cluster ? route->cluster : node_changes;
}

/* Kept, and where the client's requests still go; a stream that ended meanwhile reads as its end.
 */
static bool is_good(const struct upstream *kept, const struct route *route)
{
	char byte;

	return route->kind == ROUTE_WAYPOINT && kept->place == place_of(route) &&
	       recv(kept->watch.fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

struct upstream *waypoint_seek(struct exchange *exchange)
{
	struct session *session = exchange->session;
	struct upstream *upstream = session->waypoint;

	if (upstream && is_good(upstream, &exchange->route)) {
		session->waypoint = NULL;
		upstream->exchange = exchange;
		upstream_set(upstream, UPSTREAM_BUSY);
		return upstream;
	}
	waypoint_drop(session);
	if (!choose(exchange))
		return NULL;
	upstream =
		upstream_dial(pool_of(session->space, &exchange->route.endpoint, NULL), exchange);
	if (!upstream) {
		if (!exchange->scarce)
			waypoint_failed(exchange);
		return NULL;
	}
	upstream->owner = session;
	upstream->place = place_of(&exchange->route);
	return upstream;
}

const char *waypoint_out_of_reach(const struct route *route)
{
	static char text[200];
	char address[INET6_ADDRSTRLEN];

	if (!route->cluster)
		snprintf(text, sizeof(text), "no connection to the waypoint unix:%s",
			 node.sun_path);
	else if (!route->endpoint.port)
		snprintf(text, sizeof(text), "the waypoint has no instance");
	else
		snprintf(text, sizeof(text), "no connection to the waypoint [%s]:%u",
			 inet_ntop(AF_INET6, route->endpoint.address, address, sizeof(address)),
			 ntohs(route->endpoint.port));
	return text;
}

void waypoint_keep(struct upstream *upstream)
{
	upstream->exchange = NULL;
	upstream->awaiting = false;
	upstream_set(upstream, UPSTREAM_KEPT);
	upstream->owner->waypoint = upstream;
	upstream_watch(upstream);
}

void waypoint_drop(struct session *session)
{
	if (session->waypoint)
		upstream_close(session->waypoint, false);
	session->waypoint = NULL;
}

int waypoint_connect_again(int fd, bool *later)
{
	int result = connect(fd, (void *)&node, sizeof(node));

	*later = result && errno == EAGAIN;
	return *later ? 0 : result;
}

int waypoint_connect(bool *later)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd >= 0 && waypoint_connect_again(fd, later)) {
		close(fd);
		return -1;
	}
	return fd;
}
