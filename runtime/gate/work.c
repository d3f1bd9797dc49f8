// SPDX-License-Identifier: GPL-2.0-only
/* A client's bytes, one request after the other. */
#include "blind.h"
#include "session.h"
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static char chunk[GATE_CHUNK];

/* Whether the next bytes of the client's may be looked at. */
static bool is_open(struct session *session)
{
	if (session->closing || session->broken)
		return false;
	if (session->exchange)
		return exchange_wants_request(session->exchange);
	return !session_kernel_is_busy(session) && session_may_answer(session);
}

/* Whether there are such bytes already. */
static bool has_more(const struct session *session)
{
	return buffer_length(&session->in) && !session->partial;
}

static bool reads(struct session *session)
{
	return session->draining || (!session->ended && is_open(session));
}

/*
 * Bytes that may not be read yet mostly do not come. When they do, session_ready() sees to it that
 * they wake nobody twice; to see to it ahead would cost two calls for every request.
 */
void session_watch(struct session *session)
{
	/* A client that leaves is always to be heard of. */
	uint32_t events = (session->watch.events & EPOLLIN) | EPOLLERR;

	if (reads(session))
		events |= EPOLLIN;
	if (!session->ended && !session->hung_up)
		events |= EPOLLRDHUP;
	if (buffer_length(&session->out) ||
	    (session->exchange && exchange_is_held(session->exchange)))
		events |= EPOLLOUT;
	loop_set(&session->watch, events);
	session_slot(session)->by_gate = !(events & EPOLLIN) || session->ended ||
					 session->hung_up || session->closing || handing_over;
}

static void ended(struct session *session)
{
	session->ended = true;
	if (session->exchange) {
		exchange_request_ended(session->exchange);
	} else if (session_kernel_is_busy(session)) {
		struct upstream *upstream = session_upstream_of_kernel(session);

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

/* The bytes at the front of the stream; returns how many are done with. */
static size_t take(struct session *session, char *data, size_t length)
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
			session_refuse(session, &route);
			return length;
		}
		exchange_begin(session, data, length, &route);
	}
	return exchange_request(session->exchange, data, length);
}

/* True: nothing else is to be read now. One pipe's worth each time, that others have their turn. */
static bool moves_blindly(struct session *session)
{
	switch (session->exchange ? blind_request(session->exchange) : BLIND_NOT) {
	case BLIND_NOT:
		return false;
	case BLIND_ENDED:
		ended(session);
		return true;
	case BLIND_FAILED:
		session->broken = true;
		return true;
	default:
		return true;
	}
}

/* It has taken a request that comes before these bytes, since it was asked. */
static void wait_for_kernel(struct session *session, size_t length)
{
	buffer_append(&session->in, chunk, length);
	session->partial = false; /* it is looked at again */
	loop_set(&session->watch, session->watch.events & ~EPOLLIN);
}

static bool step(struct session *session)
{
	size_t length, used;

	if (!has_more(session)) {
		if (moves_blindly(session))
			return false;
		length = receive(session);
		if (!length)
			return false;
		if (!session->exchange && !is_open(session)) {
			wait_for_kernel(session, length);
			return false;
		}
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
		session_drop(session, false);
}

/* Everything was sent to a client that shall have it, also when it is still sending. */
static void close_in_peace(struct session *session)
{
	if (session->ended) {
		session_drop(session, false);
		return;
	}
	session->draining = true;
	session->since = loop_now;
	shutdown(session->watch.fd, SHUT_WR);
	session_watch(session);
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
	if (session->ended && !session->exchange && !session_kernel_is_busy(session) &&
	    session_may_end(session))
		session_close(session); /* all of what it sent is answered, or is no request */
	if (session->closing && !session->exchange && !buffer_length(&session->out)) {
		close_in_peace(session);
		return;
	}
	if (handing_over && handover_offer(session))
		return;
	session_watch(session);
	/* What it had to wait for came about just now: no event would tell. */
	if (has_more(session) && is_open(session))
		session_work(session);
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
		session_watch(session);
}

/* The client has ended its stream, and nobody is reading it: are there bytes before the end? */
static void hang_up(struct session *session)
{
	char byte;

	session->hung_up = true;
	if (!buffer_length(&session->in) && recv(session->watch.fd, &byte, 1, MSG_PEEK) == 0)
		ended(session);
}

void session_ready(struct watch *watched, uint32_t events)
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
		session_flush(session);
		if (session->broken) {
			session_abort(session);
			return;
		}
	}
	if (!reads(session)) {
		loop_set(watched, watched->events & ~EPOLLIN);
		if (events & EPOLLRDHUP && !session->ended)
			hang_up(session);
	}
	session_work(session);
}
