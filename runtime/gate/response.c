// SPDX-License-Identifier: GPL-2.0-only
/* The response's half of an exchange: from the upstream to the client, until it ends. */
#include "blind.h"
#include "govern.h"
#include "session.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static char chunk[GATE_CHUNK];

/* What a response's bytes mean, and in `used` how many of them belong to it; false: nothing. */
static bool read_response(struct exchange *exchange, const char *data, size_t length, size_t *used)
{
	*used = 0;
	while (*used < length && !exchange->response_done && !exchange->tunnel) {
		size_t part;

		switch (frame_feed(&exchange->response, data + *used, length - *used, &part)) {
		case FRAME_BAD:
			return false;
		case FRAME_MORE:
			*used += part;
			exchange->response_begun = true;
			return true;
		case FRAME_UPGRADE:
			exchange->response_begun = true;
			exchange->tunnel = true;
			exchange->request_done = false;
			slots_shared[exchange->session->slot].open = 0;
			*used = length;
			return true;
		case FRAME_END:
			*used += part;
			exchange->response_done = !frame_is_interim(&exchange->response);
			exchange->response_begun = exchange->response_done;
			if (!exchange->response_done)
				frame_response(&exchange->response, exchange->head,
					       exchange->connect);
		}
	}
	return true;
}

/* Interim responses are none yet; read_response() has made room for the next after each. */
static void note(struct exchange *exchange, size_t used)
{
	const struct upstream *upstream = exchange->upstream;

	exchange->measure.response_bytes += used;
	if (!exchange->response.headed || exchange->measure.head_at)
		return;
	stat_head(&exchange->measure, exchange->response.parser.status_code);
	outlier_answered(exchange->upstream, exchange->response.parser.status_code);
	memcpy(exchange->measure.endpoint, upstream->pool->key.address,
	       sizeof(exchange->measure.endpoint));
	exchange->measure.endpoint_port = upstream->pool->key.port;
}

/* The upstream has ended its stream. */
static void response_ended(struct exchange *exchange)
{
	struct session *session = exchange->session;

	if (exchange->tunnel) {
		exchange->response_done = exchange->closes = true;
		exchange->upstream->ended = true;
		upstream_watch(exchange->upstream);
		shutdown(session->watch.fd, SHUT_WR);
	} else if (frame_finish(&exchange->response)) {
		exchange->response_done = true;
		exchange->closes = true;
		exchange->request_done = true; /* what is left of it nobody takes */
	} else {
		exchange_lose(exchange, 503,
			      exchange->upstream->owner
				      ? "the waypoint closed the connection before its response"
				      : "the endpoint closed the connection before its response");
		return;
	}
	if (exchange_finish(exchange))
		session_settle(session);
}

static void was_reset(struct exchange *exchange)
{
	exchange_lose(exchange, 503,
		      exchange->upstream->owner
			      ? "the waypoint reset the connection before its response"
			      : "the endpoint reset the connection before its response");
}

/* What the client does not take at once it takes when it can: session_flush(). */
static void moved_on(struct exchange *exchange)
{
	struct session *session = exchange->session;

	if (session->broken) {
		session_settle(session);
	} else if (exchange->down.held) {
		exchange->upstream->awaiting = true;
		upstream_watch(exchange->upstream);
		session_watch(session);
	}
}

/* The upstream has something to say. */
void exchange_response(struct exchange *exchange)
{
	struct session *session = exchange->session;
	struct upstream *upstream = exchange->upstream;
	bool finished = false, upgraded = false;
	enum blind_result moved;
	size_t used;
	ssize_t got;

	if (buffer_length(&session->out) || exchange->down.held) {
		upstream->awaiting = true;
		upstream_watch(upstream);
		return;
	}
	moved = blind_response(exchange);
	if (moved == BLIND_MOVED)
		moved_on(exchange);
	else if (moved == BLIND_ENDED)
		response_ended(exchange);
	else if (moved == BLIND_FAILED)
		was_reset(exchange);
	if (moved != BLIND_NOT)
		return;
	got = recv(upstream->watch.fd, chunk, sizeof(chunk), 0);
	if (upstream->ended && got >= 0)
		return;
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got < 0) {
		was_reset(exchange);
		return;
	}
	if (got == 0) {
		response_ended(exchange);
		return;
	}
	if (upstreams_shared[upstream->id].broken) {
		exchange_lose(exchange, 502, "the response came in disorder");
		return;
	}
	used = got;
	if (exchange->tunnel) {
		exchange->measure.response_bytes += got;
		exchange->down_streak = next_streak(exchange->down_streak, got);
		session_announce(session, used);
	} else {
		if (!read_response(exchange, chunk, got, &used)) {
			exchange_lose(exchange, 502,
				      upstream->owner ? "the waypoint's response is not HTTP/1.1"
						      : "the endpoint's response is not HTTP/1.1");
			return;
		}
		note(exchange, used);
		upgraded = exchange->tunnel;
		upstream->worn = upstream->worn || used < (size_t)got;
		session_announce(session, used);
		finished = exchange_finish(exchange);
	}
	session_send_announced(session, chunk, used);
	if (upgraded)
		session_work(session);
	else if (finished || session->broken)
		session_settle(session);
}
