// SPDX-License-Identifier: GPL-2.0-only
/*
 * One gate hands over to the next, without closing a connection.
 *
 * The kernel is told to take nothing, and what it has taken is answered by the old gate. Listeners
 * go first, so that nobody waits; then each client's connection when nothing is under way on it,
 * which most are at once; the others when they are. The old gate ends with the last of them.
 * Until one has gone over the kernel takes nothing more of it: the next gate lets the kernel take
 * again, and does not know it yet.
 *
 * Both gates serve meanwhile. The old one waits for the next one only until that knows all but the
 * clients: then it hands over as many of them as are taken, and the others when there is room.
 *
 * Where the next gate's maps are others, as after a change of their layout, only listeners go: the
 * connections of before belong to the maps of before, and come to their end in the old gate.
 *
 * There a connection that the programs of before sent is nobody's whom they did not tell of it. So
 * the next gate is started beside the old one, with listeners of its own. Programs turn over while
 * both serve; then the old one hands over, and by when it has settled all that were sent to it are
 * accepted.
 */
#define _GNU_SOURCE
#include "govern.h"
#include "handover.h"
#include "waypoint.h"
#include <kmesh/http/types.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTLE_MS 200 /* until no program is at work that has not seen that it may not */
#define LETTERS	  3
#define ROUND	  64 /* connections that go over, or come, before others have their turn */

/* Gates of other versions know these numbers: a new one comes last, and they leave it unread. */
enum letter_kind {
	LETTER_SPACE = 1,
	LETTER_UPSTREAM,
	LETTER_SESSION,
	LETTER_WAYPOINT,
	LETTER_END,
	LETTER_MEMBER,
};

struct letter {
	uint32_t kind;
	uint16_t port;
	uint8_t has_ip4, has_ip6;
	uint64_t space;
	struct kmesh_session session;
	uint32_t received, chosen;
	struct kmesh_endpoint endpoint;
	uint32_t id;
	uint32_t in; /* bytes of the start of a head, behind the letter */
	uint64_t acked, sent;
	char waypoint[108]; /* the node's */
	uint32_t requests;
	uint64_t cluster; /* that the connection is counted for, or whose member it is; 0: none */
	struct member_past past;
};

bool handing_over;
static struct watch successor = {.fd = -1};
static uint32_t next_slot; /* whose connection has not been offered since there was room */
static bool offering;
static uint64_t began;
static bool settled;
static bool all_goes;
static bool heads_go;
static char heads[KMESH_HTTP_HEAD_MAX];
static struct watch predecessor = {.fd = -1};
static struct watch elder = {.fd = -1}; /* of other maps */
static const char *awaited;

static bool post_with(const struct letter *letter, const int *descriptors, int count, char *in)
{
	char room[CMSG_SPACE(sizeof(int) * LETTERS)] = {};
	struct iovec parts[] = {{.iov_base = (void *)letter, .iov_len = sizeof(*letter)},
				{.iov_base = in, .iov_len = letter->in}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	struct cmsghdr *extra;

	if (count) {
		message.msg_control = room;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		extra = CMSG_FIRSTHDR(&message);
		extra->cmsg_level = SOL_SOCKET;
		extra->cmsg_type = SCM_RIGHTS;
		extra->cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(extra), descriptors, sizeof(int) * count);
	}
	return sendmsg(successor.fd, &message, MSG_NOSIGNAL) == sizeof(*letter) + letter->in;
}

static bool post(const struct letter *letter, const int *descriptors, int count)
{
	return post_with(letter, descriptors, count, NULL);
}

static void post_space(struct space *space)
{
	struct letter letter = {.kind = LETTER_SPACE, .space = space->cookie, .port = space->port};
	int descriptors[LETTERS] = {space->netns}, count = 1;

	letter.has_ip4 = space->listeners[0].fd >= 0;
	letter.has_ip6 = space->listeners[1].fd >= 0;
	for (int i = 0; i < 2; i++)
		if (space->listeners[i].fd >= 0)
			descriptors[count++] = space->listeners[i].fd;
	post(&letter, descriptors, count);
}

static void post_upstream(struct upstream *upstream)
{
	struct letter letter = {.kind = LETTER_UPSTREAM,
				.space = upstream->pool->space->cookie,
				.id = upstream->id,
				.acked = upstream->acked,
				.sent = upstream->sent,
				.requests = upstream->requests};

	if (!upstream_take_back(upstream)) {
		/* The kernel has it, for a client who may be the next gate's soon: it comes to its
		 * end here, so nobody is to use it from now on. */
		__atomic_store_n(&upstreams_shared[upstream->id].recalled, 1, __ATOMIC_RELEASE);
		return;
	}
	memcpy(letter.endpoint.address, upstream->pool->key.address,
	       sizeof(letter.endpoint.address));
	letter.endpoint.port = upstream->pool->key.port;
	if (upstream->pool->governed)
		letter.cluster = upstream->pool->governed->cluster;
	if (post(&letter, &upstream->watch.fd, 1))
		upstream_forget(upstream);
	else
		upstream_close(upstream, false);
}

/* Both gates have the same clock. */
static void post_member(const struct governed *governed, const struct member *member)
{
	struct letter letter = {.kind = LETTER_MEMBER,
				.space = governed->space->cookie,
				.cluster = governed->cluster,
				.past = member->past};

	memcpy(letter.endpoint.address, member->is->address, sizeof(letter.endpoint.address));
	letter.endpoint.port = member->is->port;
	post(&letter, NULL, 0);
}

static bool can_go(const struct session *session)
{
	uint32_t in = buffer_length(&session->in);

	return settled && all_goes && session_is_quiet(session) && session->space->cookie &&
	       (!in || (heads_go && in <= sizeof(heads)));
}

static bool has_no_room(void)
{
	return successor.events;
}

static void wait_for_room(uint32_t slot)
{
	if (slot < next_slot)
		next_slot = slot;
	loop_set(&successor, EPOLLOUT);
}

bool handover_offer(struct session *session)
{
	struct letter letter = {.kind = LETTER_SESSION,
				.space = session->space->cookie,
				.received = session->received,
				.in = buffer_length(&session->in),
				.chosen = session->chosen};

	if (!can_go(session))
		return false;
	if (has_no_room() && !offering) {
		wait_for_room(session->slot);
		return false;
	}
	letter.session.slot = session->slot;
	letter.session.cookie = session->cookie;
	letter.session.service_port = session->service_port;
	memcpy(letter.session.service, session->service, sizeof(session->service));
	if (!post_with(&letter, &session->watch.fd, 1, session->in.data + session->in.start)) {
		if (errno == EAGAIN)
			wait_for_room(session->slot);
		return false;
	}
	waypoint_drop(session); /* it has no request, and the next gate dials its own */
	session_forget(session);
	return true;
}

/* The next gate takes letters: those who wait for that go, a few at a time. */
static void offer_more(struct watch *watch, uint32_t events)
{
	uint32_t slot = next_slot, offered = 0;

	if (events & (EPOLLHUP | EPOLLERR)) { /* it has ended: they stay */
		loop_set(watch, 0);
		return;
	}
	next_slot = KMESH_SLOTS;
	offering = true;
	for (; slot < KMESH_SLOTS && offered < ROUND && next_slot > slot; slot++)
		if (sessions[slot] && can_go(sessions[slot])) {
			offered++;
			handover_offer(sessions[slot]);
		}
	offering = false;
	if (slot < next_slot)
		next_slot = slot;
	if (next_slot == KMESH_SLOTS)
		loop_set(watch, 0);
}

/* The listeners are the next one's now, also when it says nothing for a while. */
void handover_begin(int fd, bool same_maps, bool takes_heads)
{
	struct timeval patience = {.tv_sec = 5};

	successor.fd = fd;
	successor.ready = offer_more;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK); /* what does not fit at once waits */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	handing_over = true;
	all_goes = same_maps;
	heads_go = takes_heads;
	began = loop_now;
	settings_shared->paused = 1;
	say("handing over: %u connections", session_count);
}

/* From here on clients go over while both gates serve. */
static void begin_with_clients(void)
{
	fcntl(successor.fd, F_SETFL, fcntl(successor.fd, F_GETFL) | O_NONBLOCK);
	next_slot = 0;
	loop_set(&successor, EPOLLOUT);
}

static void hand_over_the_rest(void)
{
	struct letter end = {.kind = LETTER_END}, node = {.kind = LETTER_WAYPOINT};

	settled = true;
	strcpy(node.waypoint, waypoint_path());
	post(&node, NULL, 0);
	for (struct space *space = spaces; space; space = space->next)
		if (!space->closing)
			post_space(space);
	space_stop_listening();
	governed_each_past(post_member);
	for (uint32_t slot = 0; slot < KMESH_SLOTS; slot++)
		if (sessions[slot])
			slots_shared[slot].open = 0;
	for (uint32_t id = 0; id < KMESH_UPSTREAMS; id++)
		if (all_goes && upstreams[id] && upstream_is_idle(upstreams[id]) &&
		    !upstreams[id]->owner && !upstreams[id]->pool->space->closing)
			post_upstream(upstreams[id]);
	post(&end, NULL, 0);
	begin_with_clients();
}

/* With the clients gone they are nobody's, as those that were recalled: their numbers are free. */
static void close_the_rest(void)
{
	for (uint32_t id = 0; id < KMESH_UPSTREAMS; id++)
		if (upstreams[id])
			upstream_close(upstreams[id], true);
}

void handover_tick(void)
{
	if (!handing_over)
		return;
	if (!settled && loop_now - began >= SETTLE_MS)
		hand_over_the_rest();
	if (settled && !session_count && !slots_resting()) {
		close_the_rest();
		say("handed over");
		loop_stop();
	}
}

static ssize_t read_letter(int fd, struct letter *letter, int *descriptors, int *count, int flags)
{
	char room[CMSG_SPACE(sizeof(int) * LETTERS)];
	struct iovec parts[] = {{.iov_base = letter, .iov_len = sizeof(*letter)},
				{.iov_base = heads, .iov_len = sizeof(heads)}};
	struct msghdr message = {.msg_iov = parts,
				 .msg_iovlen = 2,
				 .msg_control = room,
				 .msg_controllen = sizeof(room)};
	ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | flags);
	struct cmsghdr *extra = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;

	*count = 0;
	if (extra && extra->cmsg_type == SCM_RIGHTS) {
		*count = (extra->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(descriptors, CMSG_DATA(extra), sizeof(int) * *count);
	}
	return got;
}

static void adopt_upstream(struct space *space, const struct letter *letter, int fd)
{
	struct governed *governed = letter->cluster ? governed_of(space, letter->cluster) : NULL;
	struct upstream *upstream;

	upstream = upstream_adopt(pool_of(space, &letter->endpoint, governed), fd, letter->id,
				  letter->acked, letter->sent);
	upstream->requests = letter->requests;
	upstream_idle(upstream);
}

static void adopt_space(const struct letter *letter, const int *descriptors, int count)
{
	struct space *space;
	const char *error;

	space = space_adopt(letter->space, descriptors[0], letter->has_ip4 ? descriptors[1] : -1,
			    letter->has_ip6 ? descriptors[count - 1] : -1, letter->port);
	error = space_announce(space);
	if (error)
		say("network namespace %" PRIu64 ": connections to services with routes are "
		    "refused: %s",
		    letter->space, error);
}

static void adopt_session(struct space *space, const struct letter *letter, int fd)
{
	struct session *session = session_new(space, fd, &letter->session);

	session->received = letter->received;
	session->chosen = letter->chosen;
	buffer_append(&session->in, heads, letter->in);
	__atomic_store_n(&slots_shared[session->slot].open, 1, __ATOMIC_RELEASE);
	session_publish(session);
	session_work(session);
}

static bool adopt(const struct letter *letter, const int *descriptors, int count)
{
	struct space *space = space_find(letter->space);

	switch (letter->kind) {
	case LETTER_SPACE:
		/* Beside the other gate it listens there itself. */
		if (count != 1 + letter->has_ip4 + letter->has_ip6 || space)
			return false;
		adopt_space(letter, descriptors, count);
		return true;
	case LETTER_UPSTREAM:
		if (!space || count != 1)
			return false;
		adopt_upstream(space, letter, descriptors[0]);
		return true;
	case LETTER_SESSION:
		if (!space || count != 1 || letter->in > sizeof(heads))
			return false;
		adopt_session(space, letter, descriptors[0]);
		return true;
	case LETTER_MEMBER:
		return space && governed_adopt(space, letter->cluster, letter->endpoint.address,
					       letter->endpoint.port, &letter->past);
	case LETTER_WAYPOINT:
		return waypoint_set(letter->waypoint);
	default:
		return false;
	}
}

static void adopt_or_close(const struct letter *letter, const int *descriptors, int count)
{
	/* Of the rest the daemon has told this gate itself, and may have told it other things
	 * since. */
	bool is_wanted = !elder.ready || letter->kind == LETTER_MEMBER;

	if (is_wanted && adopt(letter, descriptors, count))
		return;
	for (int i = 0; i < count; i++)
		close(descriptors[i]);
}

/* Clients' connections, as nothing is under way on them. */
static void more_letters(struct watch *watch, uint32_t events)
{
	int descriptors[LETTERS], count;
	struct letter letter;
	ssize_t got;

	(void)events;
	for (int i = 0; i < ROUND; i++) {
		got = read_letter(watch->fd, &letter, descriptors, &count, MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got <= 0) {
			loop_remove(watch);
			return;
		}
		adopt_or_close(&letter, descriptors, count);
	}
}

/* Ask the gate at the other end for all that it has. */
static bool ask(int fd)
{
	char command[32];
	int length = snprintf(command, sizeof(command), "hand-over %u heads", maps_identity());

	return send(fd, command, length, MSG_NOSIGNAL) == length;
}

bool handover_take(const char *path)
{
	struct timeval patience = {.tv_sec = 10};
	int fd = control_call(path), descriptors[LETTERS], count;
	struct letter letter = {};

	if (fd < 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (!ask(fd)) {
		close(fd);
		return false;
	}
	while (read_letter(fd, &letter, descriptors, &count, 0) > 0 && letter.kind != LETTER_END)
		adopt_or_close(&letter, descriptors, count);
	pools_forget_unknown();
	settings_shared->paused = 0;
	if (letter.kind != LETTER_END && !spaces) {
		close(fd);
		return false;
	}
	predecessor = (struct watch){.fd = fd, .ready = more_letters};
	loop_add(&predecessor, EPOLLIN);
	return true;
}

bool handover_goes_on(void)
{
	return predecessor.ready;
}

void handover_wait(const char *path)
{
	awaited = path;
}

/* Whoever calls there finds a gate at each moment. */
const char *handover_succeed(void)
{
	int fd;

	if (!awaited)
		return "it was not started beside another";
	fd = control_call(awaited);
	if (!control_move(awaited)) {
		if (fd >= 0)
			close(fd);
		return strerror(errno);
	}
	awaited = NULL;
	if (fd < 0 || !ask(fd)) {
		say("the gate before this one has ended without handing over");
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	elder = (struct watch){.fd = fd, .ready = more_letters};
	loop_add(&elder, EPOLLIN);
	return NULL;
}
