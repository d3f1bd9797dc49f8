// SPDX-License-Identifier: GPL-2.0-only
/* Network namespaces: a listener on the loopback of each, and sockets made in them. */
#define _GNU_SOURCE
#include "gate.h"
#include "govern.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 4096
#define TRIES	8  /* to have the same port in both families */
#define ACCEPTS 64 /* in one round, that others have their turn */

struct space *spaces;

/* A descriptor of this namespace for this call, and of the process's own for all others. */
static int socket_in(int netns, int family, int kind, int protocol)
{
	static int own = -1;
	int made, error;

	if (own < 0)
		own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (own < 0 || setns(netns, CLONE_NEWNET))
		return -1;
	made = socket(family, kind | SOCK_CLOEXEC, protocol);
	error = errno;
	if (setns(own, CLONE_NEWNET))
		abort(); /* never go on in somebody else's namespace */
	errno = error;
	return made;
}

int space_socket(struct space *space, int family)
{
	return socket_in(space->netns, family, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP);
}

/* To ask about it; the answers are there at once. */
int space_netlink(struct space *space)
{
	return socket_in(space->netns, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
}

static int listen_on(int netns, int family, uint16_t *port)
{
	struct sockaddr_in ip4 = {.sin_family = AF_INET, .sin_port = htons(*port)};
	struct sockaddr_in6 ip6 = {.sin6_family = AF_INET6, .sin6_port = htons(*port)};
	struct sockaddr *address = family == AF_INET ? (void *)&ip4 : (void *)&ip6;
	socklen_t size = family == AF_INET ? sizeof(ip4) : sizeof(ip6);
	int listener = socket_in(netns, family, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP), one = 1;

	if (listener < 0)
		return -1;
	ip4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ip6.sin6_addr = in6addr_loopback;
	if (family == AF_INET6)
		setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(listener, address, size) || listen(listener, BACKLOG) ||
	    getsockname(listener, address, &size)) {
		close(listener);
		return -1;
	}
	*port = ntohs(family == AF_INET ? ip4.sin_port : ip6.sin6_port);
	return listener;
}

static void accept_some(struct space *space, struct watch *watch)
{
	for (int i = 0; i < ACCEPTS; i++) {
		union peer peer;
		socklen_t size = sizeof(peer);
		/* Asked later, a connection that was reset meanwhile does not say whose it was. */
		int fd = accept4(watch->fd, &peer.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0) {
			if (errno != EMFILE && errno != ENFILE && errno != ENOMEM)
				return;
			scarce_squeeze();
			if (scarce_make_room())
				continue;
			/* spaces_tick() comes back to it, when others may have gone. */
			loop_set(watch, 0);
			return;
		}
		session_accept(space, fd, &peer);
	}
}

static void ready_ip4(struct watch *watch, uint32_t events)
{
	(void)events;
	accept_some((void *)((char *)watch - offsetof(struct space, listeners[0])), watch);
}

static void ready_ip6(struct watch *watch, uint32_t events)
{
	(void)events;
	accept_some((void *)((char *)watch - offsetof(struct space, listeners[1])), watch);
}

struct space *space_find(uint64_t cookie)
{
	for (struct space *space = spaces; space; space = space->next)
		if (space->cookie == cookie)
			return space;
	return NULL;
}

struct space *space_adopt(uint64_t cookie, int netns, int ip4, int ip6, uint16_t port)
{
	struct space *space = calloc(1, sizeof(*space));

	if (!space)
		abort();
	space->cookie = cookie;
	space->netns = netns;
	space->port = port;
	space->listeners[0] = (struct watch){.fd = ip4, .ready = ready_ip4};
	space->listeners[1] = (struct watch){.fd = ip6, .ready = ready_ip6};
	space->next = spaces;
	spaces = space;
	for (int i = 0; i < 2; i++)
		if (space->listeners[i].fd >= 0)
			loop_add(&space->listeners[i], EPOLLIN);
	return space;
}

const char *space_announce(const struct space *space)
{
	struct kmesh_gate gate = {.port = htons(space->port)};

	if (space->listeners[0].fd >= 0)
		gate.flags |= KMESH_GATE_IP4;
	if (space->listeners[1].fd >= 0)
		gate.flags |= KMESH_GATE_IP6;
	return maps_announce_gate(space->cookie, &gate);
}

static struct space *listen_in(uint64_t cookie, int netns)
{
	for (int i = 0; i < TRIES; i++) {
		uint16_t port = 0;
		int ip4 = listen_on(netns, AF_INET, &port), ip6;

		if (ip4 < 0)
			return NULL;
		ip6 = listen_on(netns, AF_INET6, &port);
		/* Without IPv6 there is no such address; with it the port may be somebody's. */
		if (ip6 >= 0 || errno != EADDRINUSE)
			return space_adopt(cookie, netns, ip4, ip6, port);
		close(ip4);
	}
	return NULL;
}

static void free_if_unused(struct space *space)
{
	struct space **at = &spaces;

	if (!space->closing || space->users)
		return;
	while (*at != space)
		at = &(*at)->next;
	*at = space->next;
	governed_forget(space);
	close(space->netns);
	loop_free_later(space);
}

/* No new connections; those that are there go on to their end. */
void space_drop(struct space *space)
{
	maps_withdraw_gate(space->cookie);
	for (int i = 0; i < 2; i++)
		loop_remove(&space->listeners[i]);
	space->cookie = 0; /* the same namespace may be added again */
	space->closing = true;
	free_if_unused(space);
}

struct space *space_add(uint64_t cookie, int netns, const char **error)
{
	struct space *space = listen_in(cookie, netns);

	if (!space) {
		*error = strerror(errno);
		close(netns);
		return NULL;
	}
	*error = space_announce(space);
	if (!*error)
		return space;
	space_drop(space);
	return NULL;
}

void space_leave(struct space *space)
{
	space->users--;
	free_if_unused(space);
}

void spaces_tick(void)
{
	for (struct space *space = spaces; space; space = space->next)
		for (int i = 0; i < 2; i++)
			if (space->listeners[i].ready)
				loop_set(&space->listeners[i], EPOLLIN);
}

/* The listeners are another gate's from now on; its announcement is ours. */
void space_stop_listening(void)
{
	for (struct space *space = spaces; space; space = space->next)
		for (int i = 0; i < 2; i++)
			loop_remove(&space->listeners[i]);
}
