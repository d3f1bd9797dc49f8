// SPDX-License-Identifier: GPL-2.0-only
/* A client's connection. */
#define _GNU_SOURCE
#include "gate.h"
#include "frame.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define DRAIN_SECONDS 5
#define STALLED_TICKS 4 /* then it is looked into whether a request was lost */

struct session *sessions[KMESH_SLOTS];
uint32_t session_count;
static char chunk[GATE_CHUNK];

/* Slots that no program can have in its hands any more when their time has come. */
struct resting {
	struct resting *next;
	uint64_t since;
	uint32_t slot;
};

static struct resting *resting_first, **resting_last = &resting_first;

static void rest(uint32_t slot)
{
	struct resting *resting = malloc(sizeof(*resting));

	if (!resting)
		abort();
	*resting = (struct resting){.since = loop_now, .slot = slot};
	*resting_last = resting;
	resting_last = &resting->next;
}

static void wake_slots(void)
{
	while (resting_first && loop_now - resting_first->since > GATE_GRACE_SECONDS * 1000) {
		struct resting *resting = resting_first;

		resting_first = resting->next;
		if (!resting_first)
			resting_last = &resting_first;
		maps_free_slot(resting->slot);
		free(resting);
	}
}

bool slots_resting(void)
{
	return resting_first;
}

static struct kmesh_slot *slot_of(const struct session *session)
{
	return &slots_shared[session->slot];
}

/* The kernel has sent a request of this client's whose response has not been read. */
bool session_kernel_is_busy(const struct session *session)
{
	const struct kmesh_slot *slot = slot_of(session);

	return __atomic_load_n(&slot->taken, __ATOMIC_ACQUIRE) != slot->done;
}

/* The upstream that has it. */
static struct upstream *upstream_of_kernel(const struct session *session)
{
	struct upstream *upstream = upstreams[slot_of(session)->upstream % KMESH_UPSTREAMS];

	if (!upstream || upstreams_shared[upstream->id].client != session->cookie)
		return NULL;
	return upstream;
}

/* Let the kernel take requests, if it has passed none that is unanswered. */
void session_publish(struct session *session)
{
	if (session->exchange || session->closing || session->broken || handing_over)
		return;
	__atomic_store_n(&slot_of(session)->answered,
			 session->received - buffer_length(&session->in), __ATOMIC_RELEASE);
}

static void drop(struct session *session, bool reset)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (reset)
		setsockopt(session->watch.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	loop_remove(&session->watch);
	slot_of(session)->open = 0;
	__atomic_store_n(&slot_of(session)->cookie, 0, __ATOMIC_RELEASE);
	rest(session->slot);
	sessions[session->slot] = NULL;
	session_count--;
	buffer_drop(&session->in);
	buffer_drop(&session->out);
	space_leave(session->space);
	loop_free_later(session);
}

/* The connection is of no use; the request that is on its way must not be anyone else's. */
void session_abort(struct session *session)
{
	if (session->working) {
		session->broken = true; /* session_work() does it */
		return;
	}
	if (session->exchange) {
		exchange_abandon(session->exchange);
	} else if (session_kernel_is_busy(session)) {
		struct upstream *upstream = upstream_of_kernel(session);

		if (upstream)
			upstream_close(upstream, true);
	}
	drop(session, true);
}

/* Whether the next bytes of the client's may be looked at. */
static bool is_open(const struct session *session)
{
	if (session->closing || session->broken)
		return false;
	if (session->exchange)
		return exchange_wants_request(session->exchange);
	return !session_kernel_is_busy(session);
}

/* Whether there are such bytes already. */
static bool has_more(const struct session *session)
{
	return buffer_length(&session->in) && !session->partial;
}

static bool reads(const struct session *session)
{
	return session->draining || (!session->ended && is_open(session));
}

static void watch(struct session *session)
{
	uint32_t events = 0;

	if (reads(session))
		events |= EPOLLIN;
	if (!session->ended && !session->hung_up)
		events |= EPOLLRDHUP;
	if (buffer_length(&session->out))
		events |= EPOLLOUT;
	loop_set(&session->watch, events);
}

void session_send(struct session *session, const void *data, size_t length)
{
	ssize_t sent = 0;

	if (session->broken || !length)
		return;
	if (!buffer_length(&session->out)) {
		sent = send(session->watch.fd, data, length, MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN && errno != EINTR) {
			session->broken = true;
			return;
		}
		sent = sent < 0 ? 0 : sent;
	}
	buffer_append(&session->out, (const char *)data + sent, length - sent);
	if (buffer_length(&session->out))
		watch(session);
}

static void flush(struct session *session)
{
	struct buffer *out = &session->out;
	struct upstream *waiting;

	while (buffer_length(out) && !session->broken) {
		ssize_t sent = send(session->watch.fd, out->data + out->start, buffer_length(out),
				    MSG_NOSIGNAL);

		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (sent < 0)
			session->broken = true;
		else
			buffer_consume(out, sent);
	}
	if (session->broken)
		return;
	waiting = session->exchange		    ? exchange_upstream(session->exchange)
		  : session_kernel_is_busy(session) ? upstream_of_kernel(session)
						    : NULL;
	if (waiting && waiting->awaiting) {
		waiting->awaiting = false;
		upstream_watch(waiting);
	}
}

static void ended(struct session *session)
{
	session->ended = true;
	if (session->exchange) {
		exchange_request_ended(session->exchange);
	} else if (session_kernel_is_busy(session)) {
		struct upstream *upstream = upstream_of_kernel(session);

		if (upstream) {
			upstream->worn = true;
			shutdown(upstream->watch.fd, SHUT_WR);
		}
	}
}

/* More bytes of the client's: how many, 0 when there are none now. */
static size_t receive(struct session *session)
{
	ssize_t got = recv(session->watch.fd, chunk, sizeof(chunk), 0);

	if (got > 0) {
		session->received += got;
		return got;
	}
	if (got == 0)
		ended(session);
	else if (errno != EAGAIN && errno != EINTR)
		session->broken = true;
	return 0;
}

static bool is_http(const char *data, size_t length)
{
	struct frame frame;
	size_t used;

	frame_request(&frame);
	return frame_feed(&frame, data, length, &used) != FRAME_BAD;
}

/* Nothing can be made of what comes: say so, and end. */
static void refuse(struct session *session, const struct route *route)
{
	char text[1024];
	size_t length = answer_write(text, sizeof(text), route->status, route->reason, false, true);

	session->closing = true;
	buffer_drop(&session->in);
	session_send(session, text, length);
}

/* The bytes at the front of the stream; returns how many are done with. */
static size_t take(struct session *session, const char *data, size_t length)
{
	if (!session->exchange) {
		struct route route = {};

		route_request(session, data, length, session->received - length, &route);
		session->partial = route.kind == ROUTE_INCOMPLETE;
		if (session->partial)
			return 0;
		if (route.kind == ROUTE_REFUSE) {
			if (route.status == 503 && !is_http(data, length))
				route.status = 400;
			refuse(session, &route);
			return length;
		}
		exchange_begin(session, data, length, &route);
	}
	return exchange_request(session->exchange, data, length);
}

static bool step(struct session *session)
{
	size_t length, used;

	if (!has_more(session)) {
		length = receive(session);
		if (!length)
			return false;
		if (!session->partial) {
			used = take(session, chunk, length);
			if (!session->closing)
				buffer_append(&session->in, chunk + used, length - used);
			return true;
		}
		buffer_append(&session->in, chunk, length);
	}
	used = take(session, session->in.data + session->in.start, buffer_length(&session->in));
	if (used && buffer_length(&session->in))
		buffer_consume(&session->in, used);
	return true;
}

static void drain(struct session *session)
{
	ssize_t got;

	while ((got = recv(session->watch.fd, chunk, sizeof(chunk), MSG_DONTWAIT)) > 0)
		;
	if (got == 0 || (errno != EAGAIN && errno != EINTR))
		drop(session, false);
}

/* Everything was sent to a client that shall have it, also when it is still sending. */
static void close_in_peace(struct session *session)
{
	if (session->ended) {
		drop(session, false);
		return;
	}
	session->draining = true;
	session->since = loop_now;
	slot_of(session)->open = 0;
	shutdown(session->watch.fd, SHUT_WR);
	watch(session);
	drain(session);
}

void session_work(struct session *session)
{
	if (session->working)
		return;
	session->working = true;
	while (is_open(session) && (has_more(session) || !session->ended) && step(session))
		;
	session->working = false;
	if (session->broken) {
		session_abort(session);
		return;
	}
	if (session->ended && !session->exchange && !session_kernel_is_busy(session))
		session->closing = true; /* all of what it sent is answered, or is no request */
	if (session->closing && !session->exchange && !buffer_length(&session->out)) {
		close_in_peace(session);
		return;
	}
	if (!handing_over || !handover_offer(session))
		watch(session);
}

/* What comes next will wake the session by itself. */
void session_settle(struct session *session)
{
	if (session->working)
		return;
	if (session->broken || session->closing || session->ended || handing_over ||
	    buffer_length(&session->in))
		session_work(session);
	else
		watch(session);
}

/* The client has ended its stream, and nobody is reading it: are there bytes before the end? */
static void hang_up(struct session *session)
{
	char byte;

	session->hung_up = true;
	if (!buffer_length(&session->in) && recv(session->watch.fd, &byte, 1, MSG_PEEK) == 0)
		ended(session);
}

static void session_ready(struct watch *watched, uint32_t events)
{
	struct session *session = (void *)watched;

	if (events & EPOLLERR) {
		session_abort(session);
		return;
	}
	if (session->draining) {
		drain(session);
		return;
	}
	if (events & EPOLLOUT) {
		flush(session);
		if (session->broken) {
			session_abort(session);
			return;
		}
	}
	if (events & EPOLLRDHUP && !reads(session) && !session->ended)
		hang_up(session);
	session_work(session);
}

bool session_is_quiet(const struct session *session)
{
	return !session->exchange && !session->closing && !session->ended && !session->broken &&
	       !buffer_length(&session->in) && !buffer_length(&session->out) &&
	       !session_kernel_is_busy(session);
}

struct session *session_new(struct space *space, int fd, const struct kmesh_session *from)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		abort();
	session->watch = (struct watch){.fd = fd, .ready = session_ready};
	session->space = space;
	session->slot = from->slot;
	session->cookie = from->cookie;
	memcpy(session->service, from->service, sizeof(session->service));
	session->service_port = from->service_port;
	sessions[session->slot] = session;
	session_count++;
	space->users++;
	loop_add(&session->watch, EPOLLIN | EPOLLRDHUP);
	return session;
}

/* Where a connection comes from, as the client's program wrote it down. */
static bool find(struct space *space, int fd, struct kmesh_session *from)
{
	struct kmesh_session_key key = {.netns = space->cookie};
	union {
		struct sockaddr any;
		struct sockaddr_in ip4;
		struct sockaddr_in6 ip6;
	} peer;
	socklen_t size = sizeof(peer);

	if (getpeername(fd, &peer.any, &size))
		return false;
	if (peer.any.sa_family == AF_INET) {
		key.address[2] = htonl(0xffff);
		key.address[3] = peer.ip4.sin_addr.s_addr;
		key.port = peer.ip4.sin_port;
	} else {
		memcpy(key.address, &peer.ip6.sin6_addr, sizeof(key.address));
		key.port = peer.ip6.sin6_port;
	}
	return maps_take_session(&key, from) && from->slot < KMESH_SLOTS && !sessions[from->slot];
}

void session_accept(struct space *space, int fd)
{
	struct kmesh_session from;
	struct session *session;
	int one = 1;

	if (!find(space, fd, &from)) {
		close(fd); /* whoever this is, it was not sent here */
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	session = session_new(space, fd, &from);
	session->chosen = slot_of(session)->chosen;
	__atomic_store_n(&slot_of(session)->open, 1, __ATOMIC_RELEASE);
	session_work(session);
}

void session_forget(struct session *session)
{
	int fd = session->watch.fd;

	loop_release(&session->watch);
	close(fd);
	session->watch.fd = -1;
	sessions[session->slot] = NULL;
	session_count--;
	space_leave(session->space);
	loop_free_later(session);
}

/* A request of the kernel's that is not on its way any more would be waited for without end. */
static void look_for_loss(struct session *session)
{
	struct upstream *upstream = upstream_of_kernel(session);
	struct route route = {.status = 503, .reason = "the request was lost on its way"};

	if (upstream && !upstream_lost_a_request(upstream))
		return;
	if (upstream)
		upstream_close(upstream, true);
	slot_of(session)->done = slot_of(session)->taken;
	refuse(session, &route);
	session_work(session);
}

void sessions_tick(void)
{
	wake_slots();
	for (uint32_t slot = 0; slot < KMESH_SLOTS; slot++) {
		struct session *session = sessions[slot];

		if (!session)
			continue;
		if (session->draining) {
			if (loop_now - session->since > DRAIN_SECONDS * 1000)
				drop(session, false);
		} else if (session->exchange || !session_kernel_is_busy(session)) {
			session->stalled = 0;
			if (handing_over)
				handover_offer(session);
		} else if (++session->stalled >= STALLED_TICKS) {
			session->stalled = 0;
			look_for_loss(session);
		}
	}
}
