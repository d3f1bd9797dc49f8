// SPDX-License-Identifier: GPL-2.0-only
/* A client's connection: its slot, what is sent to it, and its end. */
#include "session.h"
#include "waypoint.h"
#include "stat.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define DRAIN_SECONDS 5
#define HOME_MS	      1000
#define ASK_AGAIN_MS  1
#define STALLED_TICKS 4 /* then it is looked into whether a request was lost */

struct session *sessions[KMESH_SLOTS];
uint32_t session_count;

struct kmesh_slot *session_slot(const struct session *session)
{
	return &slots_shared[session->slot];
}

/* The kernel has sent a request of this client's whose response has not been read. */
bool session_kernel_is_busy(const struct session *session)
{
	const struct kmesh_slot *slot = session_slot(session);
	uint32_t done = __atomic_load_n(&slot->done, __ATOMIC_ACQUIRE);

	return __atomic_load_n(&slot->taken, __ATOMIC_ACQUIRE) != done;
}

/* The upstream that has it. */
struct upstream *session_upstream_of_kernel(const struct session *session)
{
	struct upstream *upstream = upstreams[session_slot(session)->upstream % KMESH_UPSTREAMS];

	if (!upstream || upstreams_shared[upstream->id].client != session->cookie)
		return NULL;
	return upstream;
}

/* Let the kernel take requests, if it has passed none that is unanswered. */
void session_publish(struct session *session)
{
	struct kmesh_slot *slot = session_slot(session);

	if (session->exchange || session->closing || session->broken || handing_over)
		return;
	__atomic_store_n(&slot->answered, session->received - buffer_length(&session->in),
			 __ATOMIC_RELEASE);
	__atomic_store_n(&slot->published, slot->published + 1, __ATOMIC_RELEASE);
}

/* The kernel takes nothing more of it either. */
void session_close(struct session *session)
{
	session->closing = true;
	session_slot(session)->open = 0;
}

void session_drop(struct session *session, bool reset)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (reset)
		setsockopt(session->watch.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	waypoint_drop(session);
	loop_remove(&session->watch);
	session_slot(session)->open = 0;
	__atomic_store_n(&session_slot(session)->cookie, 0, __ATOMIC_RELEASE);
	slot_rest(session->slot);
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
		struct upstream *upstream = session_upstream_of_kernel(session);

		stat_unanswered(session, session_slot(session)->upstream);
		if (upstream)
			upstream_close(upstream, true);
	}
	session_drop(session, true);
}

void session_announce(struct session *session, size_t length)
{
	__atomic_fetch_add(&session_slot(session)->responded, (uint32_t)length, __ATOMIC_RELEASE);
}

void session_send_announced(struct session *session, const void *data, size_t length)
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
		session_watch(session);
}

void session_flush(struct session *session)
{
	struct buffer *out = &session->out;
	struct upstream *waiting;

	if (session->exchange && !exchange_flush(session->exchange))
		return;
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
		  : session_kernel_is_busy(session) ? session_upstream_of_kernel(session)
						    : NULL;
	if (waiting && waiting->awaiting) {
		waiting->awaiting = false;
		upstream_watch(waiting);
	}
}

/* Nothing can be made of what comes: say so, and end. */
void session_refuse(struct session *session, const struct route *route)
{
	char text[1024];
	size_t length =
		answer_write(text, sizeof(text), route->status, route->reason, NULL, false, true);

	stat_refused(session, route->stat, route->status, length);
	session_close(session);
	buffer_drop(&session->in);
	session_announce(session, length);
	session_send_announced(session, text, length);
}

bool session_is_quiet(const struct session *session)
{
	return !session->exchange && !session->closing && !session->ended && !session->broken &&
	       (session->partial || !buffer_length(&session->in)) &&
	       !buffer_length(&session->out) && !session_kernel_is_busy(session);
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
	session->by_gate = slots_shared[session->slot].done;
	sessions[session->slot] = session;
	session_count++;
	space->users++;
	loop_add(&session->watch, EPOLLIN | EPOLLRDHUP);
	return session;
}

void session_forget(struct session *session)
{
	int fd = session->watch.fd;

	loop_release(&session->watch);
	close(fd);
	session->watch.fd = -1;
	sessions[session->slot] = NULL;
	session_count--;
	buffer_drop(&session->in);
	space_leave(session->space);
	loop_free_later(session);
}

/*
 * Responses that went home may still be on their way into the client's queue when the gate's end of
 * the stream would be there: it waits for a while.
 */
bool session_may_end(struct session *session)
{
	uint32_t home = session_slot(session)->done - session->by_gate;

	if (home != session->went_home) {
		session->went_home = home;
		session->home_since = loop_now;
	}
	return !session->home_since ||
	       (loop_now - session->home_since > HOME_MS && !underway(session->slot));
}

/* A request of the kernel's that is not on its way any more would be waited for without end. */
static void look_for_loss(struct session *session)
{
	struct upstream *upstream = session_upstream_of_kernel(session);
	struct route route = {.status = 503, .reason = "the request was lost on its way"};

	route.stat = upstreams_shared[session_slot(session)->upstream % KMESH_UPSTREAMS].stat;
	if (upstream && !upstream_lost_a_request(upstream))
		return;
	if (upstream)
		upstream_close(upstream, true);
	session_slot(session)->done = session_slot(session)->taken;
	session_refuse(session, &route);
	session_work(session);
}

/* Nobody has woken it when the kernel's last response went home. */
static void catch_up(struct session *session)
{
	if (handing_over && handover_offer(session))
		return;
	if (!session->exchange && session_slot(session)->by_gate)
		session_work(session);
}

/* Slots that wait for a response under way, each once; some come again while they are looked at. */
static uint32_t asking[2 * KMESH_SLOTS];
static uint32_t asking_count;
static bool asks[KMESH_SLOTS];

static void ask_again(void)
{
	uint32_t count = asking_count;

	for (uint32_t i = 0; i < count; i++) {
		struct session *session = sessions[asking[i]];

		asks[asking[i]] = false;
		if (session && !session->draining && !session->exchange &&
		    !session_kernel_is_busy(session))
			catch_up(session);
	}
	asking_count -= count;
	memmove(asking, asking + count, asking_count * sizeof(*asking));
}

static void ask_later(uint32_t slot)
{
	if (!asks[slot])
		asking[asking_count++] = slot;
	asks[slot] = true;
	loop_after(loop_now + ASK_AGAIN_MS, ask_again);
}

/* Nor is anything said to a client that did not wait for such a response, until it is there. */
bool session_may_answer(struct session *session)
{
	const struct kmesh_slot *slot = session_slot(session);
	bool pipelines = __atomic_load_n(&slot->pipelines, __ATOMIC_ACQUIRE);
	uint64_t homed = slot->homed_ns;

	if (session->arrived_ns == homed || (!pipelines && slot->doubted_ns != homed))
		return true;
	if (underway(session->slot)) {
		ask_later(session->slot);
		return false;
	}
	session->arrived_ns = homed;
	return true;
}

void sessions_tick(void)
{
	slots_tick();
	for (uint32_t slot = 0; slot < KMESH_SLOTS; slot++) {
		struct session *session = sessions[slot];

		if (!session)
			continue;
		if (session->draining) {
			if (loop_now - session->since > DRAIN_SECONDS * 1000)
				session_drop(session, false);
		} else if (session->exchange || !session_kernel_is_busy(session)) {
			session->stalled = 0;
			catch_up(session);
		} else if (session->stalled_at != session_slot(session)->taken) {
			session->stalled_at = session_slot(session)->taken;
			session->stalled = 0;
		} else if (++session->stalled >= STALLED_TICKS) {
			session->stalled = 0;
			look_for_loss(session);
		}
	}
}
