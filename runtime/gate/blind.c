// SPDX-License-Identifier: GPL-2.0-only
/*
 * Large bodies and tunnels. The last byte of a body is always left to the parser, which so finds
 * out that the message is over; all before are only counted.
 *
 * splice(2) reads what TCP has queued, past a socket map's own queues. So a connection leaves the
 * map first, for good; and where a program of the map's judges what comes in, it is left alone.
 */
#include "blind.h"
#include <errno.h>

static bool is_ordinary(struct upstream *upstream)
{
	if (upstream->owner || upstream->ordinary)
		return true;
	if (!enrolled_may_leave())
		return false;
	enrolled_leave(upstreams_shared[upstream->id].cookie);
	upstream->ordinary = upstream->worn = true;
	return true;
}

static bool moves(const struct upstream *upstream)
{
	return upstream && upstream->state == UPSTREAM_BUSY && !upstream->ended;
}

static uint64_t to_come(const struct exchange *exchange, const struct frame *frame)
{
	return exchange->tunnel ? UINT64_MAX : frame_blind(frame);
}

static bool is_soft(void)
{
	return errno == EAGAIN || errno == EINTR;
}

bool blind_flush_request(struct exchange *exchange)
{
	struct upstream *upstream = exchange->upstream;

	while (exchange->up.held) {
		ssize_t gone = bulk_drain(&exchange->up, upstream->watch.fd);

		if (gone <= 0)
			return gone < 0 && is_soft();
		upstream->sent += gone;
	}
	return true;
}

bool blind_flush_response(struct exchange *exchange)
{
	while (exchange->down.held) {
		ssize_t gone = bulk_drain(&exchange->down, exchange->session->watch.fd);

		if (gone <= 0)
			return gone < 0 && is_soft();
	}
	return true;
}

static enum blind_result fill(struct bulk *bulk, int from, uint64_t most, ssize_t *got)
{
	*got = bulk_fill(bulk, from, most);
	if (*got > 0)
		return BLIND_MOVED;
	if (*got == 0)
		return BLIND_ENDED;
	return is_soft() ? BLIND_LATER : errno == EINVAL ? BLIND_NOT : BLIND_FAILED;
}

enum blind_result blind_request(struct exchange *exchange)
{
	struct session *session = exchange->session;
	uint64_t most = to_come(exchange, &exchange->request);
	enum blind_result result;
	ssize_t got;

	if (exchange->up.held)
		return BLIND_MOVED;
	if (most < BULK_LEAST || exchange->discards || !moves(exchange->upstream) ||
	    exchange_has_unsent(exchange) ||
	    (exchange->tunnel && exchange->up_streak < BULK_STREAK) ||
	    !is_ordinary(exchange->upstream) || !bulk_begin(&exchange->up))
		return BLIND_NOT;
	result = fill(&exchange->up, session->watch.fd, most, &got);
	if (result != BLIND_MOVED)
		return result;
	session->received += got;
	exchange->measure.request_bytes += got;
	if (!exchange->tunnel)
		frame_skip(&exchange->request, got);
	else
		exchange->up_streak = next_streak(exchange->up_streak, got);
	if (!blind_flush_request(exchange)) {
		exchange->discards = true; /* it may have answered all the same */
		bulk_end(&exchange->up);
	}
	upstream_watch(exchange->upstream);
	return BLIND_MOVED;
}

enum blind_result blind_response(struct exchange *exchange)
{
	struct upstream *upstream = exchange->upstream;
	uint64_t most = to_come(exchange, &exchange->response);
	enum blind_result result;
	ssize_t got;

	if (most < BULK_LEAST || !moves(upstream) ||
	    (exchange->tunnel && exchange->down_streak < BULK_STREAK) || !is_ordinary(upstream) ||
	    !bulk_begin(&exchange->down))
		return BLIND_NOT;
	result = fill(&exchange->down, upstream->watch.fd, most, &got);
	if (result != BLIND_MOVED)
		return result;
	session_announce(exchange->session, got);
	exchange->measure.response_bytes += got;
	if (!exchange->tunnel)
		frame_skip(&exchange->response, got);
	else
		exchange->down_streak = next_streak(exchange->down_streak, got);
	if (!blind_flush_response(exchange))
		exchange->session->broken = true;
	return BLIND_MOVED;
}
