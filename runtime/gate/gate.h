/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The gate: the TCP peer of every client whose requests may be routed, and the owner of the
 * connections to endpoints. One thread, one epoll; nothing in it blocks.
 *
 *	space     a network namespace: a listener on its loopback, and pools of upstreams
 *	session   a client's connection
 *	upstream  a connection to an endpoint; idle in its pool, or in an exchange
 *	exchange  one request and its response, whether the kernel sent the request or the gate does
 */
#ifndef KMESH_GATE_GATE_H
#define KMESH_GATE_GATE_H

#include <kmesh/gate_types.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GATE_CHUNK	   65536 /* bytes that are moved at a time */
#define GATE_DIALS	   3	 /* endpoints tried before a client is told that there is none */
#define GATE_DIAL_MS	   5000	 /* where the cluster says nothing of it, as Envoy has it */
#define GATE_IDLE_SECONDS  20	 /* an upstream that nobody uses so long is closed */
#define GATE_GRACE_SECONDS 2	 /* before a slot is given again; no program runs so long */

/* How many of the shared numbers it uses; tests have a gate that soon runs out of them. */
#ifndef GATE_UPSTREAMS
#define GATE_UPSTREAMS KMESH_UPSTREAMS
#endif
#ifndef GATE_POOLS
#define GATE_POOLS KMESH_POOLS
#endif

/* loop.c */
struct watch {
	int fd;
	uint32_t events;
	void (*ready)(struct watch *watch, uint32_t events);
};

extern uint64_t loop_now; /* ms, CLOCK_MONOTONIC, of this round */
void loop_init(void);
void loop_add(struct watch *watch, uint32_t events);
void loop_set(struct watch *watch, uint32_t events); /* 0: not even for errors */
void loop_remove(struct watch *watch);		     /* and closes */
void loop_release(struct watch *watch);		     /* and leaves the descriptor open */
void loop_after(uint64_t time, void (*task)(void));  /* the next such task; ms */
void loop_free_later(void *memory); /* when no event of this round can name it any more */
/* `settle` comes after each round of events, `tick` twice a second. */
void loop_run(void (*tick)(void), void (*settle)(void));
void loop_stop(void);

/* buffer.c */
struct buffer {
	char *data;
	uint32_t start, end, size;
};

static inline uint32_t buffer_length(const struct buffer *buffer)
{
	return buffer->end - buffer->start;
}

void buffer_append(struct buffer *buffer, const void *data, size_t length);
void buffer_consume(struct buffer *buffer, size_t length); /* frees it when it is empty */
void buffer_drop(struct buffer *buffer);

/* maps.c */
int maps_open(const char *pins);
uint32_t maps_identity(void);
extern struct kmesh_slot *slots_shared;
extern struct kmesh_upstream *upstreams_shared;
extern struct kmesh_pool *pools_shared;
extern struct kmesh_gate_settings *settings_shared;
bool maps_take_session(const struct kmesh_session_key *key, struct kmesh_session *session);
void maps_forget_unaccepted(void);
void maps_free_slot(uint32_t slot);
void maps_reset(void);
uint64_t maps_socket(uint64_t cookie);
void maps_name_upstream(uint64_t cookie, uint32_t id);
void maps_forget_upstream(uint64_t cookie);
bool maps_number_pool(const struct kmesh_pool_key *key, uint32_t *pool);
void maps_forget_pool(const struct kmesh_pool_key *key, uint32_t pool);
void maps_forget_pools(bool (*is_known)(const struct kmesh_pool_key *key));
bool maps_offer(uint32_t pool, uint32_t number, uint32_t upstream);
bool maps_take_back(uint32_t pool, uint32_t number);
const char *maps_announce_gate(uint64_t netns, const struct kmesh_gate *gate); /* what failed */
extern uint32_t maps_pools_refused; /* numbers of pools that could not be given: all are in use */
void maps_withdraw_gate(uint64_t netns);

/* alone.c */
int alone_open(const char *pins);
bool alone_end_others(void); /* false: some are left, and the maps are not to be touched */

/* enrolled.c */
int enrolled_open(const char *pins);
void enrolled_leave(uint64_t cookie); /* the kernel shall not send to this socket */
bool enrolled_may_leave(void);	      /* nothing of what it got is in the map's keeping */

/* space.c */
#define SPACE_SOURCES 8 /* addresses that are known of a namespace, of either family */

struct space {
	struct space *next;
	uint64_t cookie;
	int netns;
	uint16_t port;
	struct watch listeners[2];
	bool closing;
	uint32_t users; /* sessions and upstreams */
	uint64_t asked; /* when these were found (addresses.c), of IPv4 and IPv6 */
	bool sources_known;
	bool has_workload[2]; /* they are of workloads that are known */
	uint32_t source_count[2];
	__be32 sources[2][SPACE_SOURCES][4];
};

struct space *space_find(uint64_t cookie);
/* The descriptor of the namespace is the space's, or closed. */
struct space *space_add(uint64_t cookie, int netns, const char **error);
const char *space_announce(const struct space *space); /* to the kernel; what failed */
struct space *space_adopt(uint64_t cookie, int netns, int ip4, int ip6, uint16_t port);
void space_drop(struct space *space);
int space_socket(struct space *space, int family); /* non-blocking, TCP */
int space_netlink(struct space *space);
void space_leave(struct space *space); /* a session or a pool of it has gone */
void spaces_tick(void);
void space_stop_listening(void);
extern struct space *spaces;

/* pool.c: connections to one endpoint from one namespace */
struct pool {
	struct pool *chain;
	struct space *space;
	struct kmesh_pool_key key;
	uint32_t number;
	bool numbered;
	struct upstream *idle; /* the one used last first */
	struct upstream *all;
	uint32_t count; /* upstreams, idle or not */
	/* Of a cluster that the gate governs (govern.h): nobody else's, and never the kernel's. */
	struct governed *governed;
	struct exchange *waiting, *waiting_last;
	struct pool *stirred_next;
	bool stirred;
	int32_t off; /* how many requests too many were counted when it was last looked (busy.c) */
};

/* NULL: nobody has a connection there, or waits for one. */
struct pool *pool_find(const struct space *space, const struct kmesh_endpoint *endpoint,
		       const struct governed *governed);
/* `governed`: the cluster whose connections are counted; NULL: they are anyone's. */
struct pool *pool_of(struct space *space, const struct kmesh_endpoint *endpoint,
		     struct governed *governed);
struct upstream *pool_take(struct pool *pool);
void pool_put(struct upstream *upstream);
void pool_out(struct upstream *upstream);
void pool_enter(struct upstream *upstream);
void pool_leave(struct upstream *upstream);
void pools_each(void (*call)(struct pool *pool));
void pool_gain(struct pool *pool);    /* a connection more */
void pool_release(struct pool *pool); /* one less; the last takes the pool with it */
void pool_free_if_unused(struct pool *pool);
void pools_forget_unknown(void); /* numbers that a gate before this one gave */

/* upstream.c */
enum upstream_state {
	UPSTREAM_DIALLING,
	UPSTREAM_IDLE,
	UPSTREAM_BUSY,
	UPSTREAM_KEPT, /* idle, for its owner alone */
	UPSTREAM_HELD, /* idle, and for the kernel alone to use, for one client */
};

struct upstream {
	struct watch watch;
	struct pool *pool;
	struct exchange *exchange;
	struct upstream *next, *previous; /* in its pool, while idle */
	struct upstream *beside;	  /* of its pool, the next one, whatever it does */
	struct upstream **beside_at;	  /* what points at this one */
	struct upstream *older, *younger; /* of those that nobody uses (unused.c) */
	struct session *owner;		  /* of a waypoint's: who it is introduced as */
	uint64_t place;			  /* of a waypoint's: which */
	uint64_t since;			  /* it is in this state */
	uint64_t acked;			  /* bytes, before the first */
	uint64_t sent;			  /* bytes, by the gate */
	uint64_t held_at;		  /* bytes, by the kernel, all of them answered */
	uint64_t seen;			  /* bytes, by the kernel, at the last tick */
	uint32_t patience;		  /* ms until its dial has failed */
	uint32_t id;
	uint32_t offer;	   /* its number among the idle ones */
	uint32_t requests; /* that it was used for, where the gate governs */
	uint8_t state;
	bool offered;  /* to the kernel too */
	bool worn;     /* not to be used again */
	bool awaiting; /* it has bytes that the client cannot take yet */
	bool ended;    /* it sends no more, and still takes */
	bool hung_up;  /* nor does it take */
	bool ordinary; /* not in the socket map any more */
	bool later;    /* its peer's queue was full: it is to connect again */
	bool leaving;  /* it was recalled, and whoever could use it may not know yet */
	bool counted;  /* a request of the gate's, in `busy` of its pool (busy.c) */
	bool doubted;  /* the kernel's that is counted has nobody who waits for it */
};

extern struct upstream *upstreams[KMESH_UPSTREAMS];
extern uint32_t upstreams_leaving;
struct upstream *upstream_dial(struct pool *pool, struct exchange *exchange);
struct upstream *upstream_adopt(struct pool *pool, int fd, uint32_t id, uint64_t acked,
				uint64_t sent);
void upstream_idle(struct upstream *upstream);
void upstream_rest(struct upstream *upstream); /* idle: in its pool, or with its client */
bool upstream_is_idle(const struct upstream *upstream);
void upstream_forget(struct upstream *upstream); /* another gate has it */
void upstream_taken(struct upstream *upstream);
void upstream_close(struct upstream *upstream, bool reset);
void upstream_set(struct upstream *upstream, enum upstream_state state);
bool upstream_end_unused(struct upstream *upstream); /* idle or kept; false: the kernel has it */
bool upstream_is_taken(struct upstream *upstream);   /* the kernel's request is not over */
void upstream_recall(struct upstream *upstream);     /* held: in a while it is nobody's */
bool upstream_take_back(struct upstream *upstream);
void upstream_watch(struct upstream *upstream);
bool upstream_lost_a_request(struct upstream *upstream);
void upstreams_tick(void);
uint64_t socket_cookie(int fd);

/* busy.c: requests under way, by endpoint */
void busy_begin(struct upstream *upstream);
void busy_end(struct upstream *upstream);
int32_t busy_at(struct space *space, const struct kmesh_endpoint *endpoint);
void busy_tick(void);

/* numbers.c: of upstreams, as the kernel knows them */
extern uint32_t numbers_used;
bool number_take(uint32_t *id);
void number_adopt(uint32_t id); /* that another gate had */
void number_leave(uint32_t id); /* to another gate */
void number_give(uint32_t id);

/* unused.c: the upstreams that nobody uses, by age */
void unused_put(struct upstream *upstream);
void unused_out(struct upstream *upstream);
struct upstream *unused_oldest(enum upstream_state state);

/* scarce.c: when numbers or descriptors get short */
bool scarce_make_room(void);		     /* true: there is some now; else there soon may be */
uint64_t scarce_patience(void);		     /* ms that an upstream may be unused */
void scarce_look(void);			     /* there may be room again */
void scarce_squeeze(void);		     /* the system refuses a descriptor */
void scarce_wait(struct exchange *exchange); /* until there is room */
void scarce_leave(struct exchange *exchange);
void scarce_settle(void);
void scarce_tick(void);
extern uint64_t scarce_ended;	/* upstreams that were ended to make room */
extern uint32_t scarce_waiting; /* exchanges */

/* session.c */
struct session {
	struct watch watch;
	struct space *space;
	struct exchange *exchange;
	struct upstream *waypoint; /* kept from an earlier exchange */
	struct buffer in;	   /* read, and not yet of any exchange */
	struct buffer out;	   /* for the client, who does not take it */
	uint64_t cookie;
	uint32_t slot;
	uint32_t received; /* bytes of requests, in all; as the kernel counts them */
	__be32 service[4];
	__be16 service_port;
	uint32_t chosen;     /* choices of the kernel's that were used */
	uint32_t stalled;    /* ticks that a request of the kernel's has been without a response */
	uint32_t stalled_at; /* which one */
	uint32_t by_gate;    /* responses to the kernel's requests that came by the gate */
	uint32_t went_home;  /* the others, when they were last counted */
	uint64_t home_since; /* when that was */
	uint64_t arrived_ns; /* `homed_ns` of the last response that is known to be with the client
			      */
	uint64_t since;	     /* it is draining */
	bool partial;	     /* `in` is the start of a head */
	bool ended;	     /* the client sends no more */
	bool hung_up;	     /* it does not, and there may be bytes before that */
	bool broken;	     /* there is no client any more */
	bool closing;	     /* when all of `out` is sent */
	bool draining;	     /* it is sent: until the client has ended too */
	bool working;	     /* session_work() is at it */
};

extern struct session *sessions[KMESH_SLOTS];
extern uint32_t session_count;
void session_work(struct session *session);
/* So many bytes are about to be sent; `announced` ones have been said before the kernel was let go
 * on. */
void session_announce(struct session *session, size_t length);
void session_send_announced(struct session *session, const void *data, size_t length);
void session_settle(struct session *session); /* an exchange has ended */
void session_close(struct session *session);  /* when all has been sent */
void session_abort(struct session *session);  /* and its upstream with it */
void session_publish(struct session *session);
bool session_kernel_is_busy(const struct session *session);
struct session *session_new(struct space *space, int fd, const struct kmesh_session *from);
void session_forget(struct session *session); /* another gate has it */
/* Nothing is under way; the start of a head may be there. */
bool session_is_quiet(const struct session *session);
void sessions_tick(void);

/* accept.c */
union peer {
	struct sockaddr any;
	struct sockaddr_in ip4;
	struct sockaddr_in6 ip6;
};

void session_accept(struct space *space, int fd, const union peer *peer);

/* slots.c */
void slot_rest(uint32_t slot);
void slots_tick(void);
bool slots_resting(void);

/* route.c */
enum route_kind {
	ROUTE_INCOMPLETE,
	ROUTE_ENDPOINT, /* one was chosen */
	ROUTE_ANSWER,	/* with `status` */
	ROUTE_REFUSE,	/* the same, and nothing that follows can be understood */
	ROUTE_WAYPOINT, /* it is relayed */
	ROUTE_TUNNEL,	/* and all that follows with it */
};

/* What an answer says beside its status. It is written before the next request is looked at. */
struct reply {
	const char *body, *location;
	size_t body_size, location_size;
	const char *headers; /* whole lines */
};

struct route {
	enum route_kind kind;
	bool needs_waypoint; /* `kind` is for where there is none */
	int status;
	const char *reason;
	struct reply reply;
	uint64_t cluster; /* of a waypoint: 0 is the node's */
	uint32_t stat;	  /* where its requests are counted */
	struct kmesh_endpoint endpoint;
	struct governed *governed; /* whose endpoint it is, where the gate governs */
};

static inline bool route_is_relayed(const struct route *route)
{
	return route->kind == ROUTE_WAYPOINT || route->kind == ROUTE_TUNNEL;
}

void route_request(struct session *session, char *head, size_t length, uint32_t at,
		   struct route *route);
/* Another endpoint of the same cluster. */
bool route_again(struct route *route);
bool route_pick(uint64_t cluster, struct kmesh_endpoint *endpoint);
uint32_t route_patience(const struct route *route); /* ms, of a dial */
void routes_tick(void);

/* exchange.c */
struct exchange *exchange_begin(struct session *session, const char *head, size_t length,
				const struct route *route);
struct exchange *exchange_of_kernel(struct session *session, struct upstream *upstream);
size_t exchange_request(struct exchange *exchange, const char *data, size_t length);
bool exchange_wants_request(const struct exchange *exchange);
struct upstream *exchange_upstream(const struct exchange *exchange);
bool exchange_has_unsent(const struct exchange *exchange);
bool exchange_flush(struct exchange *exchange);		/* to the client; false: there is more */
bool exchange_is_held(const struct exchange *exchange); /* so it is */
void exchange_request_ended(struct exchange *exchange);
void exchange_connected(struct exchange *exchange, int error);
void exchange_seek_again(struct exchange *exchange);   /* it waits for room (scarce.c) */
void exchange_wait_no_more(struct exchange *exchange); /* there is none */
void exchange_writable(struct exchange *exchange);
void exchange_response(struct exchange *exchange);
void exchange_abandon(struct exchange *exchange);

/* answer.c */
#define GATE_ANSWER 24576 /* bytes of an answer, at most */
size_t answer_write(char *text, size_t size, int status, const char *reason,
		    const struct reply *reply, bool head, bool closes);

/* clock.c */
int clock_open(void);

/* underway.c */
int underway_open(const char *pins);
/* Whether the last response that went home to a client may not be there yet. */
bool underway(uint32_t slot);
uint64_t clock_ns(void); /* CLOCK_MONOTONIC */
const char *clock_date(void);
void clock_tick(void);

/* phrase.c */
const char *status_phrase(int status);

/* handover.c */
extern bool handing_over;
bool handover_offer(struct session *session); /* to the next gate; true: it is gone */

/* control.c */
int control_listen(const char *path);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
