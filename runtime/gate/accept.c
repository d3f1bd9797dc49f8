// SPDX-License-Identifier: GPL-2.0-only
/* Whose connection is it that has come, and where was it going? */
#include "waypoint.h"
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

/* Where a connection comes from, as the client's program wrote it down. */
static bool find(struct space *space, const union peer *peer, struct kmesh_session *from)
{
	struct kmesh_session_key key = {.netns = space->cookie};

	peer_address(peer, key.address, &key.port);
	return maps_take_session(&key, from) && from->slot < KMESH_SLOTS && !sessions[from->slot];
}

void session_accept(struct space *space, int fd, const union peer *peer)
{
	struct kmesh_session from;
	struct session *session;
	int one = 1;

	if (!find(space, peer, &from)) {
		close(fd); /* whoever this is, it was not sent here */
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	session = session_new(space, fd, &from);
	session->chosen = slots_shared[session->slot].chosen;
	__atomic_store_n(&slots_shared[session->slot].open, 1, __ATOMIC_RELEASE);
	session_work(session);
}
