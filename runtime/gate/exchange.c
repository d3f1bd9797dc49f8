// SPDX-License-Identifier: GPL-2.0-only
/*
 * One request and its response. The gate changes no byte of either; it only finds out where they
 * end. A request that the kernel has sent comes here with its response alone.
 */
#include "blind.h"
#include "govern.h"
#include "waypoint.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct exchange *make(struct session *session)
{
	struct exchange *exchange = calloc(1, sizeof(*exchange));

	if (!exchange)
		abort();
	exchange->session = session;
	session->exchange = exchange;
	return exchange;
}

void exchange_leave_upstream(struct exchange *exchange, bool reset)
{
	breaker_leave(exchange);
	scarce_leave(exchange);
	if (exchange->upstream)
		upstream_close(exchange->upstream, reset);
	exchange->upstream = NULL;
	bulk_end(&exchange->up);
}

static void forget(struct exchange *exchange)
{
	stat_end(&exchange->measure, exchange->session);
	breaker_leave(exchange);
	scarce_leave(exchange);
	if (exchange->route.governed)
		exchange->route.governed->users--;
	exchange->session->exchange = NULL;
	buffer_drop(&exchange->unsent);
	bulk_end(&exchange->up);
	bulk_end(&exchange->down);
	free(exchange);
}

void exchange_abandon(struct exchange *exchange)
{
	exchange_leave_upstream(exchange, true);
	forget(exchange);
}

struct upstream *exchange_upstream(const struct exchange *exchange)
{
	return exchange->upstream;
}

bool exchange_has_unsent(const struct exchange *exchange)
{
	return buffer_length(&exchange->unsent) || exchange->up.held;
}

bool exchange_is_held(const struct exchange *exchange)
{
	return exchange->down.held;
}

bool exchange_flush(struct exchange *exchange)
{
	if (!blind_flush_response(exchange))
		exchange->session->broken = true;
	return !exchange->down.held && !exchange->session->broken;
}

bool exchange_wants_request(const struct exchange *exchange)
{
	return !exchange->request_done && !exchange->up.held &&
	       buffer_length(&exchange->unsent) < GATE_CHUNK;
}

/* Both are over. The kernel may take the next one before the last bytes of this are sent. */
bool exchange_finish(struct exchange *exchange)
{
	struct session *session = exchange->session;
	struct upstream *upstream = exchange->upstream;

	if (!exchange->request_done || !exchange->response_done ||
	    (exchange->tunnel && exchange_has_unsent(exchange)))
		return false;
	if (!exchange->request_kept || !exchange->response.keeps)
		exchange->closes = true;
	exchange->upstream = NULL;
	if (upstream) {
		if (exchange->closes || exchange->ended || exchange->discards || upstream->worn ||
		    exchange_has_unsent(exchange) || handing_over)
			upstream_close(upstream, false);
		else if (upstream->owner)
			waypoint_keep(upstream);
		else
			upstream_rest(upstream);
	}
	if (exchange->closes)
		session_close(session);
	if (exchange->of_kernel) {
		session->by_gate++;
		__atomic_store_n(&slots_shared[session->slot].done,
				 slots_shared[session->slot].done + 1, __ATOMIC_RELEASE);
	}
	session->stalled = 0;
	forget(exchange);
	session_publish(session);
	return true;
}

static void reply(struct exchange *exchange, int status, const char *reason,
		  const struct reply *with)
{
	struct session *session = exchange->session;
	static char text[GATE_ANSWER];
	size_t length;

	exchange_leave_upstream(exchange, true);
	buffer_drop(&exchange->unsent);
	if (exchange->tunnel) {
		exchange->tunnel = false;
		exchange->request_done = exchange->closes = true;
		buffer_drop(&session->in);
	}
	exchange->discards = true;
	exchange->response_done = true;
	exchange->response.keeps = !exchange->closes;
	length = answer_write(text, sizeof(text), status, reason, with, exchange->head,
			      exchange->closes ||
				      (exchange->request_done && !exchange->request_kept));
	session_announce(session, length);
	stat_head(&exchange->measure, status);
	exchange->measure.response_bytes += length;
	exchange_finish(exchange);
	session_send_announced(session, text, length);
}

void exchange_answer(struct exchange *exchange, int status, const char *reason)
{
	reply(exchange, status, reason, NULL);
}

/* As Envoy's router tells it. */
static void refuse(struct exchange *exchange)
{
	static const char body[] = "upstream connect error or disconnect/reset before headers. "
				   "reset reason: overflow";
	static const struct reply overflow = {.body = body,
					      .body_size = sizeof(body) - 1,
					      .headers = "x-envoy-overloaded: true\r\n"};

	reply(exchange, 503, "a circuit breaker of the cluster is open", &overflow);
}

void exchange_lose(struct exchange *exchange, int status, const char *reason)
{
	struct session *session = exchange->session;

	if (exchange->upstream && exchange->route.governed && !exchange->response_done)
		breaker_failed(exchange);
	if (exchange->response_done && !exchange->tunnel) {
		exchange_leave_upstream(exchange, true);
		exchange->discards = true; /* what is left of the request */
	} else if (exchange->response_begun) {
		session_abort(session); /* the client must not take what it has for all of it */
		return;
	} else {
		exchange_answer(exchange, status, reason);
	}
	session_work(session);
}

static void forward(struct exchange *exchange, const char *data, size_t length)
{
	struct upstream *upstream = exchange->upstream;
	ssize_t sent = 0;

	if (exchange->discards || !length)
		return;
	if (upstream && upstream->state == UPSTREAM_BUSY && !exchange_has_unsent(exchange)) {
		sent = send(upstream->watch.fd, data, length, MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN && errno != EINTR) {
			exchange->discards = true; /* it may have answered all the same */
			if (exchange->tunnel)
				session_abort(exchange->session);
			return;
		}
		sent = sent < 0 ? 0 : sent;
		upstream->sent += sent;
	}
	buffer_append(&exchange->unsent, data + sent, length - sent);
	if (upstream && upstream->state == UPSTREAM_BUSY)
		upstream_watch(upstream);
}

static void pass_the_end_on(struct exchange *exchange)
{
	if (!exchange->ended || exchange_has_unsent(exchange) || !exchange->upstream ||
	    exchange->upstream->state != UPSTREAM_BUSY)
		return;
	shutdown(exchange->upstream->watch.fd, SHUT_WR);
}

void exchange_writable(struct exchange *exchange)
{
	struct upstream *upstream = exchange->upstream;
	struct session *session = exchange->session;
	struct buffer *unsent = &exchange->unsent;
	bool wanted = exchange_wants_request(exchange);

	if (!blind_flush_request(exchange)) {
		exchange->discards = true;
		bulk_end(&exchange->up);
	}
	while (buffer_length(unsent)) {
		ssize_t sent = send(upstream->watch.fd, unsent->data + unsent->start,
				    buffer_length(unsent), MSG_NOSIGNAL);

		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (sent < 0) {
			exchange->discards = true;
			buffer_drop(unsent);
			break;
		}
		upstream->sent += sent;
		buffer_consume(unsent, sent);
	}
	if (exchange->discards && exchange->tunnel) {
		session_abort(session);
		return;
	}
	upstream_watch(upstream);
	pass_the_end_on(exchange);
	if (exchange->tunnel && exchange_finish(exchange))
		session_settle(session);
	else if (!wanted && exchange_wants_request(exchange))
		session_work(session);
}

/* Get a connection to the endpoint that was chosen. */
static void seek(struct exchange *exchange)
{
	struct pool *pool;

	exchange->dials++;
	exchange->scarce = false;
	if (route_is_relayed(&exchange->route)) {
		exchange->upstream = waypoint_seek(exchange);
		return;
	}
	pool = pool_of(exchange->session->space, &exchange->route.endpoint,
		       exchange->route.governed);
	if (pool->governed) {
		breaker_seek(exchange, pool);
		return;
	}
	exchange->upstream = pool_take(pool);
	if (exchange->upstream)
		exchange->upstream->exchange = exchange;
	else
		exchange->upstream = upstream_dial(pool, exchange);
	if (exchange->upstream)
		busy_begin(exchange->upstream);
}

static const char *no_way(const struct exchange *exchange)
{
	if (exchange->scarce)
		return "the gate can have no more connections";
	return route_is_relayed(&exchange->route) ? waypoint_out_of_reach(&exchange->route)
						  : "no connection to an endpoint";
}

/* As Istio's default retries do: what was never sent may go to another endpoint. */
static bool seek_until_found(struct exchange *exchange)
{
	for (;;) {
		if (exchange->dials >= GATE_DIALS || exchange->overloaded)
			return false;
		if (exchange->dials && !route_is_relayed(&exchange->route) &&
		    !route_again(&exchange->route))
			return false;
		seek(exchange);
		if (exchange->upstream || exchange->waits_in) {
			scarce_leave(exchange);
			return true;
		}
		if (exchange->scarce) {
			exchange->dials--;
			scarce_wait(exchange);
			return true;
		}
	}
}

/* Nothing has been sent; `upstream` is NULL when the exchange only waited for one. */
static void forsake(struct exchange *exchange)
{
	struct upstream *upstream = exchange->upstream;

	if (upstream && upstream->owner)
		waypoint_failed(exchange);
	if (exchange->route.governed) {
		breaker_failed(exchange);
		if (upstream)
			breaker_fail_waiting(upstream->pool);
	}
	exchange_leave_upstream(exchange, true);
}

static void give_up(struct exchange *exchange)
{
	struct session *session = exchange->session;

	if (!exchange->overloaded) {
		exchange_lose(exchange, 503, no_way(exchange));
		return;
	}
	refuse(exchange);
	session_work(session);
}

void exchange_connected(struct exchange *exchange, int error)
{
	struct upstream *upstream;

	if (!error && exchange->upstream->owner) {
		waypoint_reached(exchange);
		if (!waypoint_introduce(exchange->session, exchange->upstream))
			error = EPIPE;
	}
	if (error) {
		forsake(exchange);
		if (!seek_until_found(exchange)) {
			give_up(exchange);
			return;
		}
		if (!exchange->upstream || exchange->upstream->state != UPSTREAM_BUSY)
			return;
	} else if (exchange->route.governed && !breaker_attach(exchange)) {
		upstream = exchange->upstream;
		exchange->upstream = NULL;
		upstream_idle(upstream);
		give_up(exchange);
		return;
	}
	exchange->response_begun |= exchange->tunnel; /* from now on the waypoint speaks */
	exchange_writable(exchange);
}

void exchange_seek_again(struct exchange *exchange)
{
	if (!seek_until_found(exchange))
		give_up(exchange);
	else if (exchange->upstream && exchange->upstream->state == UPSTREAM_BUSY)
		exchange_writable(exchange);
}

void exchange_wait_no_more(struct exchange *exchange)
{
	scarce_leave(exchange);
	give_up(exchange);
}

/* `head` is a whole head, or the first bytes of a tunnel. */
struct exchange *exchange_begin(struct session *session, const char *head, size_t length,
				const struct route *route)
{
	struct exchange *exchange = make(session);

	exchange->route = *route;
	if (route->governed)
		route->governed->users++;
	exchange->tunnel = route->kind == ROUTE_TUNNEL;
	if (exchange->tunnel)
		slots_shared[session->slot].open = 0; /* the kernel takes nothing more of it */
	stat_begin(&exchange->measure, route->stat,
		   route_is_relayed(route) ? KMESH_BY_WAYPOINT : KMESH_BY_GATE);
	if (!exchange->tunnel) /* whose bytes may be anything */
		log_head(&exchange->measure, head, length);
	exchange->head = length > 5 && !memcmp(head, "HEAD ", 5);
	exchange->connect = length > 8 && !memcmp(head, "CONNECT ", 8);
	frame_request(&exchange->request);
	frame_response(&exchange->response, exchange->head, exchange->connect);
	return exchange;
}

struct exchange *exchange_of_kernel(struct session *session, struct upstream *upstream)
{
	struct exchange *exchange = make(session);

	exchange->of_kernel = true;
	stat_begin_taken(&exchange->measure, upstream->id);
	log_taken(&exchange->measure, upstream->id);
	exchange->request_done = true;
	exchange->request_kept = true;
	exchange->upstream = upstream;
	exchange->ended = session->ended;
	exchange->head = upstreams_shared[upstream->id].flags & KMESH_REQUEST_HEAD;
	frame_response(&exchange->response, exchange->head, false);
	return exchange;
}

/* Its first bytes are known to be right: now something is done about it. */
static void act(struct exchange *exchange)
{
	exchange->acted = true;
	exchange->dials = 0;
	if (exchange->route.kind == ROUTE_ANSWER)
		reply(exchange, exchange->route.status, exchange->route.reason,
		      &exchange->route.reply);
	else if (!seek_until_found(exchange))
		give_up(exchange);
}

/* Where the request ends is a matter of opinion, and the waypoint has begun to read it. */
static void become_tunnel(struct exchange *exchange)
{
	exchange->tunnel = true;
	exchange->response_begun |= exchange->upstream->state == UPSTREAM_BUSY;
	exchange->response_done = false;
	slots_shared[exchange->session->slot].open = 0;
}

/* Returns how many of the bytes were the request's. The exchange may be over afterwards. */
size_t exchange_request(struct exchange *exchange, const char *data, size_t length)
{
	struct session *session = exchange->session;
	enum frame_result result = FRAME_MORE;
	size_t used = 0;

	if (!exchange->tunnel) {
		result = frame_feed(&exchange->request, data, length, &used);
		if (result == FRAME_BAD && exchange->upstream && exchange->upstream->owner)
			become_tunnel(exchange);
	}
	if (exchange->tunnel) {
		if (!exchange->acted)
			act(exchange);
		if (session->exchange == exchange) {
			exchange->measure.request_bytes += length;
			exchange->up_streak = next_streak(exchange->up_streak, length);
			forward(exchange, data, length);
		}
		return length;
	}
	exchange->measure.request_bytes += used;
	if (result == FRAME_BAD) {
		exchange->request_done = true;
		exchange->closes = true;
		if (exchange->response_begun)
			session_abort(session);
		else
			exchange_answer(exchange, 400,
					"the request is not HTTP/1.1 as RFC 9112 has it");
		return length;
	}
	if (result != FRAME_MORE) {
		exchange->request_done = true;
		exchange->request_kept = exchange->request.keeps;
	}
	if (!exchange->acted)
		act(exchange);
	if (session->exchange != exchange)
		return used; /* answered already */
	forward(exchange, data, used);
	exchange_finish(exchange);
	return used;
}

/* The client sends no more. */
void exchange_request_ended(struct exchange *exchange)
{
	exchange->ended = true;
	if (exchange->upstream)
		exchange->upstream->worn = true;
	exchange->request_done = true;
	pass_the_end_on(exchange);
	exchange_finish(exchange);
}
