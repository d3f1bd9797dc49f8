// SPDX-License-Identifier: GPL-2.0-only
/* Connections to endpoints. */
#define _GNU_SOURCE
#include "exchange.h"
#include "govern.h"
#include "waypoint.h"
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SO_COOKIE_OPTION 57

struct upstream *upstreams[KMESH_UPSTREAMS];
uint32_t upstreams_leaving;

uint64_t socket_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);

	getsockopt(fd, SOL_SOCKET, SO_COOKIE_OPTION, &cookie, &size);
	return cookie;
}

static struct tcp_info information(int fd)
{
	struct tcp_info info = {};
	socklen_t size = sizeof(info);

	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
	return info;
}

static void set_leaving(struct upstream *upstream, bool leaving)
{
	if (upstream->leaving != leaving)
		upstreams_leaving += leaving ? 1 : -1;
	upstream->leaving = leaving;
}

void upstream_set(struct upstream *upstream, enum upstream_state state)
{
	if (upstream_is_idle(upstream))
		unused_out(upstream);
	upstream->state = state;
	upstream->since = loop_now;
	if (!upstream_is_idle(upstream))
		return;
	set_leaving(upstream, false);
	unused_put(upstream);
	scarce_look();
}

static void upstream_ready(struct watch *watch, uint32_t events);

static struct upstream *make(struct pool *pool, int fd, uint32_t id)
{
	struct upstream *upstream = calloc(1, sizeof(*upstream));

	if (!upstream)
		abort();
	upstream->watch = (struct watch){.fd = fd, .ready = upstream_ready};
	upstream->pool = pool;
	upstream->id = id;
	upstream->since = loop_now;
	upstreams[id] = upstream;
	pool_enter(upstream);
	return upstream;
}

static int begin_connect(struct pool *pool, bool *later)
{
	const __be32 *to = pool->key.address;
	bool is_ip4 = !to[0] && !to[1] && to[2] == htonl(0xffff);
	struct sockaddr_in ip4 = {.sin_family = AF_INET, .sin_port = pool->key.port};
	struct sockaddr_in6 ip6 = {.sin6_family = AF_INET6, .sin6_port = pool->key.port};
	int fd, one = 1, result;

	*later = false;
	if (!pool->key.port)
		return waypoint_connect(later);
	fd = space_socket(pool->space, is_ip4 ? AF_INET : AF_INET6);
	if (fd < 0)
		return -1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ip4.sin_addr.s_addr = to[3];
	memcpy(&ip6.sin6_addr, to, sizeof(ip6.sin6_addr));
	result = is_ip4 ? connect(fd, (void *)&ip4, sizeof(ip4))
			: connect(fd, (void *)&ip6, sizeof(ip6));
	if (!result || errno == EINPROGRESS)
		return fd;
	close(fd);
	return -1;
}

/* With a number; -1: there is no way there, or it is scarce. */
static int begin_dial(struct pool *pool, uint32_t *id, bool *later, bool *scarce)
{
	int fd;

	*scarce = !number_take(id);
	if (*scarce)
		return -1;
	fd = begin_connect(pool, later);
	if (fd >= 0)
		return fd;
	*scarce = errno == EMFILE || errno == ENFILE;
	if (*scarce)
		scarce_squeeze();
	number_give(*id);
	return -1;
}

/* NULL: there is no way there, or none for now (`exchange->scarce`). */
struct upstream *upstream_dial(struct pool *pool, struct exchange *exchange)
{
	struct upstream *upstream;
	uint32_t id;
	bool later;
	int fd;

	pool_gain(pool);
	fd = begin_dial(pool, &id, &later, &exchange->scarce);
	if (exchange->scarce && scarce_make_room())
		fd = begin_dial(pool, &id, &later, &exchange->scarce);
	if (fd < 0) {
		pool_release(pool);
		return NULL;
	}
	upstream = make(pool, fd, id);
	upstream->state = UPSTREAM_DIALLING;
	upstream->exchange = exchange;
	upstream->later = later;
	upstream->patience = route_patience(&exchange->route);
	if (!later)
		loop_add(&upstream->watch, EPOLLOUT);
	return upstream;
}

static void connect_again(struct upstream *upstream)
{
	if (waypoint_connect_again(upstream->watch.fd, &upstream->later))
		exchange_connected(upstream->exchange, errno);
	else if (!upstream->later)
		loop_add(&upstream->watch, EPOLLOUT);
}

static void tell_pool(const struct upstream *upstream)
{
	const struct pool *pool = upstream->pool;

	upstreams_shared[upstream->id].pool = pool->numbered ? pool->number : KMESH_NO_POOL;
}

static void established(struct upstream *upstream)
{
	struct kmesh_upstream *shared = &upstreams_shared[upstream->id];

	upstream->acked = information(upstream->watch.fd).tcpi_bytes_acked;
	/* `used` stays: at no moment is the number to look free to another gate. */
	memset(shared, 0, offsetof(struct kmesh_upstream, used));
	memset(&shared->used + 1, 0,
	       sizeof(*shared) - offsetof(struct kmesh_upstream, used) - sizeof(shared->used));
	shared->recalled = !!upstream->pool->governed;
	tell_pool(upstream);
	shared->sock = maps_socket(socket_cookie(upstream->watch.fd));
	maps_name_upstream(socket_cookie(upstream->watch.fd), upstream->id);
	__atomic_store_n(&shared->cookie, socket_cookie(upstream->watch.fd), __ATOMIC_RELEASE);
	if (upstream->owner)
		enrolled_leave(shared->cookie);
	upstream_set(upstream, UPSTREAM_BUSY);
}

static void dialled(struct upstream *upstream)
{
	int error = 0;
	socklen_t size = sizeof(error);

	getsockopt(upstream->watch.fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (!error)
		established(upstream);
	exchange_connected(upstream->exchange, error);
}

/* One that an earlier gate hands over, idle. */
struct upstream *upstream_adopt(struct pool *pool, int fd, uint32_t id, uint64_t acked,
				uint64_t sent)
{
	struct upstream *upstream = make(pool, fd, id);

	pool_gain(pool);
	number_adopt(id);
	upstream->acked = acked;
	upstream->sent = sent;
	upstream->state = UPSTREAM_BUSY;
	tell_pool(upstream);
	loop_add(&upstream->watch, EPOLLIN | EPOLLRDHUP);
	return upstream;
}

/* The kernel can use it only when it can look into its socket. */
void upstream_idle(struct upstream *upstream)
{
	struct pool *pool = upstream->pool;

	busy_end(upstream);
	upstream->exchange = NULL;
	upstream->awaiting = false;
	upstream_set(upstream, UPSTREAM_IDLE);
	upstream_watch(upstream);
	pool_put(upstream);
	upstream->offered = false;
	if (pool->governed)
		breaker_stir(pool);
	if (!pool->numbered || !upstreams_shared[upstream->id].sock || handing_over)
		return;
	upstream->offer = pools_shared[pool->number].next;
	upstream->offered = maps_offer(pool->number, upstream->offer, upstream->id);
	if (upstream->offered)
		__atomic_store_n(&pools_shared[pool->number].next, upstream->offer + 1,
				 __ATOMIC_RELEASE);
}

/* Whether the kernel keeps it for the client whose request it has just answered. */
static bool is_held(const struct upstream *upstream)
{
	const struct kmesh_upstream *shared = &upstreams_shared[upstream->id];
	const struct session *session = sessions[shared->slot % KMESH_SLOTS];

	return shared->flags & KMESH_REQUEST_HELD && !shared->recalled && session &&
	       session->cookie == shared->client && !handing_over;
}

/* Changes with each request that the kernel sends, by the connection or past it. */
static uint64_t requests_of_kernel(const struct upstream *upstream)
{
	const struct kmesh_upstream *shared = &upstreams_shared[upstream->id];

	return shared->sent + shared->shortened;
}

void upstream_rest(struct upstream *upstream)
{
	if (!upstream->exchange->of_kernel || !is_held(upstream)) {
		upstream_idle(upstream);
		return;
	}
	busy_end(upstream);
	upstream->exchange = NULL;
	upstream->awaiting = false;
	upstream_set(upstream, UPSTREAM_HELD);
	upstream->held_at = requests_of_kernel(upstream);
	upstream_watch(upstream);
}

bool upstream_is_idle(const struct upstream *upstream)
{
	return upstream->state == UPSTREAM_IDLE || upstream->state == UPSTREAM_HELD ||
	       upstream->state == UPSTREAM_KEPT;
}

static struct session *taker_of(struct upstream *upstream)
{
	struct kmesh_upstream *shared = &upstreams_shared[upstream->id];
	struct session *session = sessions[shared->slot % KMESH_SLOTS];

	if (!session || session->cookie != shared->client || !session_kernel_is_busy(session))
		return NULL;
	return slots_shared[session->slot].upstream == upstream->id ? session : NULL;
}

bool upstream_is_taken(struct upstream *upstream)
{
	return taker_of(upstream);
}

/*
 * True: it is the gate's. False: the kernel has it, and a response will come. A held one can be
 * taken back only while no program runs.
 */
bool upstream_take_back(struct upstream *upstream)
{
	bool mine = !taker_of(upstream);

	if (upstream->state == UPSTREAM_IDLE) {
		mine = !upstream->offered ||
		       (mine && maps_take_back(upstream->pool->number, upstream->offer));
		pool_out(upstream);
	} else if (mine) {
		upstreams_shared[upstream->id].client = 0;
	}
	upstream->offered = false;
	upstream_set(upstream, !mine && is_held(upstream) ? UPSTREAM_HELD : UPSTREAM_BUSY);
	return mine;
}

/*
 * The kernel is to use it no more. A program that is about to do so may not have seen that; when
 * surely none is, look_after() closes it, or there is a response to come.
 */
void upstream_recall(struct upstream *upstream)
{
	__atomic_store_n(&upstreams_shared[upstream->id].recalled, 1, __ATOMIC_RELEASE);
	upstream_set(upstream, UPSTREAM_BUSY);
	set_leaving(upstream, true);
}

/* The client of a held connection is gone, and with it whoever could use the connection. */
static bool is_orphan(const struct upstream *upstream)
{
	const struct kmesh_upstream *shared = &upstreams_shared[upstream->id];
	const struct session *session = sessions[shared->slot % KMESH_SLOTS];

	return !session || session->cookie != shared->client;
}

void upstream_close(struct upstream *upstream, bool reset)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};
	struct pool *pool = upstream->pool;
	uint64_t cookie = 0;

	busy_end(upstream);
	pool_leave(upstream);
	if (upstream->state == UPSTREAM_IDLE)
		pool_out(upstream);
	if (upstream_is_idle(upstream))
		unused_out(upstream);
	set_leaving(upstream, false);
	if (upstream->state == UPSTREAM_DIALLING)
		cookie = socket_cookie(upstream->watch.fd);
	if (reset)
		setsockopt(upstream->watch.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	loop_remove(&upstream->watch);
	if (cookie)
		maps_socket(cookie); /* it may have been established, and nobody has asked */
	upstreams[upstream->id] = NULL;
	if (upstreams_shared[upstream->id].cookie)
		maps_forget_upstream(upstreams_shared[upstream->id].cookie);
	__atomic_store_n(&upstreams_shared[upstream->id].cookie, 0, __ATOMIC_RELEASE);
	number_give(upstream->id);
	scarce_look();
	loop_free_later(upstream);
	pool_release(pool);
}

bool upstream_end_unused(struct upstream *upstream)
{
	if (upstream->state == UPSTREAM_KEPT)
		waypoint_drop(upstream->owner);
	else if (upstream_take_back(upstream))
		upstream_close(upstream, false);
	else
		return false;
	return true;
}

void upstream_forget(struct upstream *upstream)
{
	int fd = upstream->watch.fd;

	pool_leave(upstream);
	if (upstream_is_idle(upstream))
		unused_out(upstream);
	set_leaving(upstream, false);
	loop_release(&upstream->watch);
	close(fd);
	upstream->watch.fd = -1;
	upstreams[upstream->id] = NULL; /* the shared one stays as it is */
	number_leave(upstream->id);
	loop_free_later(upstream);
	pool_release(upstream->pool);
}

/* What it is to be woken for. */
void upstream_watch(struct upstream *upstream)
{
	uint32_t events = upstream->awaiting || upstream->hung_up ? 0
			  : upstream->ended			  ? EPOLLERR
								  : EPOLLIN;

	if (upstream->exchange && exchange_has_unsent(upstream->exchange))
		events |= EPOLLOUT;
	loop_set(&upstream->watch, events);
}

/* The kernel has sent a request to it: whose? */
void upstream_taken(struct upstream *upstream)
{
	struct session *session = taker_of(upstream);

	/* The kernel may be just about to say; look_again() comes back to it. */
	upstream->awaiting = !session || session->exchange;
	if (!upstream->awaiting) {
		upstream->exchange = exchange_of_kernel(session, upstream);
		set_leaving(upstream, false);
	}
	upstream_watch(upstream);
}

static void upstream_ready(struct watch *watch, uint32_t events)
{
	struct upstream *upstream = (void *)watch;

	if (upstream->state == UPSTREAM_DIALLING) {
		dialled(upstream);
		return;
	}
	if (upstream->ended && events & EPOLLHUP && !(events & (EPOLLERR | EPOLLOUT))) {
		upstream->hung_up = true; /* who sends to it will see; nothing else is new */
		upstream_watch(upstream);
		return;
	}
	if ((upstream->state == UPSTREAM_KEPT || upstream->state == UPSTREAM_IDLE) &&
	    upstream_end_unused(upstream))
		return; /* its end, or what nobody asked for */
	if (upstream->state == UPSTREAM_HELD) {
		if (is_orphan(upstream)) {
			upstream_close(upstream, false);
			return;
		}
		if (taker_of(upstream))
			upstream_set(upstream, UPSTREAM_BUSY);
		else
			upstream_recall(upstream); /* its end, most likely */
	}
	if (!upstream->exchange)
		upstream_taken(upstream);
	if (upstream->exchange && events & EPOLLOUT)
		exchange_writable(upstream->exchange);
	if (watch->ready && upstream->exchange && events & ~EPOLLOUT)
		exchange_response(upstream->exchange);
}

/*
 * Whether what the kernel sent never reached the connection: a redirect has no way to say that it
 * failed. Then everything that did is acknowledged, and that is less than what was sent. What went
 * past the connection is lost only with the endpoint's socket, whose end is heard of.
 */
bool upstream_lost_a_request(struct upstream *upstream)
{
	uint64_t sent = upstream->sent + upstreams_shared[upstream->id].sent;
	int waiting = 0;

	if (ioctl(upstream->watch.fd, SIOCOUTQ, &waiting) || waiting)
		return false;
	return information(upstream->watch.fd).tcpi_bytes_acked - upstream->acked < sent;
}

/* To its pool; what was sent by a client that has gone is not answered to anyone else. */
static void give_back(struct upstream *upstream)
{
	struct kmesh_upstream *shared = &upstreams_shared[upstream->id];

	if (requests_of_kernel(upstream) != upstream->held_at) {
		upstream_close(upstream, true);
		return;
	}
	shared->client = 0;
	upstream_idle(upstream);
}

/*
 * Whether its client has used it since the last tick; the gate is not told when responses go home.
 * When all of them are answered is certain only where nothing has happened between two ticks.
 */
static bool is_in_use(struct upstream *upstream)
{
	const struct kmesh_upstream *shared = &upstreams_shared[upstream->id];
	const struct session *session = sessions[shared->slot % KMESH_SLOTS];
	uint64_t requests = requests_of_kernel(upstream);

	if (requests != upstream->seen) {
		upstream->seen = requests;
		return true;
	}
	if (session && session->cookie == shared->client && !session_kernel_is_busy(session))
		upstream->held_at = requests;
	return false;
}

/*
 * The kernel has it, or had it. An exchange begins when there is something to read and no sooner:
 * the response may be on its way home.
 */
static void look_again(struct upstream *upstream)
{
	if (is_held(upstream)) {
		upstream_set(upstream, UPSTREAM_HELD);
	} else if (!taker_of(upstream) && loop_now - upstream->since > GATE_GRACE_SECONDS * 1000) {
		upstream_close(upstream, true); /* its client is gone, or it was recalled */
		return;
	}
	upstream->awaiting = false;
	upstream_watch(upstream);
}

static void look_after(struct upstream *upstream)
{
	uint64_t age = loop_now - upstream->since;

	if (upstream->state == UPSTREAM_DIALLING) {
		if (age > upstream->patience)
			exchange_connected(upstream->exchange, ETIMEDOUT);
		else if (upstream->later)
			connect_again(upstream);
	} else if (upstream->state == UPSTREAM_KEPT || upstream->state == UPSTREAM_IDLE) {
		if (age > scarce_patience())
			upstream_end_unused(upstream);
	} else if (upstream->state == UPSTREAM_HELD) {
		if (is_in_use(upstream))
			upstream_set(upstream, UPSTREAM_HELD);
		else if (age > scarce_patience())
			upstream_recall(upstream);
		else if (age > GATE_GRACE_SECONDS * 1000 && is_orphan(upstream))
			give_back(upstream);
	} else if (!upstream->exchange) {
		look_again(upstream);
	}
}

void upstreams_tick(void)
{
	for (uint32_t id = 0; id < KMESH_UPSTREAMS; id++)
		if (upstreams[id])
			look_after(upstreams[id]);
}
