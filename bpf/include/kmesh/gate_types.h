/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel and the gate tell each other. Both compile this; the arrays are mapped into the
 * gate's memory, so each field has one writer, and is read as a whole.
 *
 * A client's connection has a slot. The kernel takes a request only when the gate has answered
 * every byte that was passed to it (`answered`) and the kernel's own last request has been answered
 * (`taken == done`). Whatever either side sees late can only make the kernel pass a request that it
 * might have taken: the order of responses never depends on it.
 */
#ifndef KMESH_GATE_TYPES_H
#define KMESH_GATE_TYPES_H

#include <kmesh/types.h>

#define KMESH_SLOTS	65536  /* connections to services with routes, at a time */
#define KMESH_UPSTREAMS 65536  /* connections to endpoints, at a time */
#define KMESH_POOLS	131072 /* endpoints, by network namespace, that have connections */

/* The gate of one network namespace. */
struct kmesh_gate_key {
	__u64 netns;
};

#define KMESH_GATE_IP4 1
#define KMESH_GATE_IP6 2

struct kmesh_gate {
	__be16 port; /* on loopback, of both families */
	__u16 flags;
};

/* A connection as the gate sees it when it accepts. */
struct kmesh_session_key {
	__u64 netns;
	__be32 address[4];
	__be16 port;
	__u8 pad[6];
};

struct kmesh_session {
	__u64 cookie; /* the client's socket's */
	__u64 since;  /* ns, CLOCK_MONOTONIC */
	__be32 service[4];
	__be16 service_port;
	__u16 pad;
	__u32 slot;
};

struct kmesh_slot {
	/* the kernel's */
	__u64 cookie; /* whose slot it is; the gate makes it 0 when it is nobody's any more */
	__u32 taken;  /* requests that the kernel took */
	__u32 upstream;
	__u32 choice_at; /* where the passed request begins that `choice` was made for */
	__u32 chosen;	 /* how many choices were made so */
	__be32 choice_address[4];
	__be16 choice_port;
	__u16 pad;
	__u32 pipelines; /* the client does not wait for responses: none of them go home */
	/* the gate's */
	__u32 open;	/* the gate has accepted the connection: the kernel may take */
	__u32 done;	/* requests taken by the kernel whose responses have been read */
	__u32 answered; /* bytes of requests read and answered whole, from the connection's start */
	__u32 responded; /* bytes of responses, written or about to be; before `done`, `answered` */
	__u32 by_gate;	 /* the gate must hear of the response that is to come */
	__u32 published; /* how often `answered` has been said anew */
	/* the kernel's */
	__u64 sock;	      /* where the kernel keeps the client's socket */
	__u32 first_received; /* sequence number of the first byte for the client */
	__u32 homed_at;	      /* `responded` when a response last went home */
	__u64 homed_ns;	      /* when that was, CLOCK_MONOTONIC; 0: never */
	__u64 homed_by;	      /* who sent it (kmesh/underway.h): what is kept of its socket */
	__u64 homed_from;     /* and its socket; both 0 when nobody tells */
	__u64 doubted_ns;     /* `homed_ns` when a request came that may have come before it */
};

/* What a request was that the kernel sent to an upstream. */
#define KMESH_REQUEST_HEAD  1 /* its response has no body */
#define KMESH_REQUEST_CLOSE 2 /* the connection ends with its response */
#define KMESH_REQUEST_HELD  4 /* the connection stays with the client afterwards */
/* And its response: some of it has been passed to the gate, so all of it is. */
#define KMESH_RESPONSE_PASSED 8
/* It is counted in its pool's `busy`; whoever sees its end takes it out (kmesh/busy.h). */
#define KMESH_REQUEST_COUNTED 16

#define KMESH_NO_POOL 0xffffffff

struct kmesh_upstream {
	/* the gate's */
	__u64 cookie; /* 0: no such upstream */
	__u64 sock;   /* where the kernel keeps it */
	/* the kernel's */
	__u64 client; /* cookie of the client whose request it has */
	__u64 sent;   /* bytes by this connection, in all */
	__u32 slot;
	__u32 flags;
	/* the gate's */
	__u32 recalled; /* no client may hold it any more */
	__u32 used; /* the number is given; by compare and swap, for two gates may give at once */
	/* the kernel's, for whoever counts the response (kmesh/stat_types.h) */
	__u64 since; /* ns, CLOCK_MONOTONIC, it took the request */
	__u32 stat;  /* the route's */
	__u32 size;  /* of the request, bytes */
	/* the kernel's, where responses go home (bpf/home) */
	__u32 expects; /* the number of the next byte, once `expecting` */
	__u32 expecting;
	__u32 broken; /* bytes came again, or not in order: nothing of it can be trusted */
	/* the kernel's */
	__u32 shortened; /* requests that went past this connection, to its very end */
	/* the gate's */
	__u32 pool; /* its number; KMESH_NO_POOL: it has none that the kernel knows */
	__u32 pad;
};

/* An endpoint of one network namespace. */
struct kmesh_pool_key {
	__u64 netns;
	__be32 address[4];
	__be16 port;
	__u8 pad[6];
};

struct kmesh_pool_number {
	__u32 pool;
};

/*
 * Idle connections are numbered in the order in which they became idle; a number is given once.
 * Who deletes the number's element has the connection: the kernel, or the gate. `first` is but a
 * hint where to look.
 */
struct kmesh_pool {
	__u32 first; /* the kernel's */
	__u32 next;  /* the gate's: the number to give next */
	__s32 busy;  /* anyone's, by atomic additions: requests under way (kmesh/busy.h) */
	__u32 pad;
};

struct kmesh_idle_key {
	__u32 pool;
	__u32 number;
};

struct kmesh_idle {
	__u32 upstream;
};

/*
 * A service's port that has routes: what reads its heads and what routes them (kmesh/http/maps.h),
 * and the table that says what its routes do. One update turns all three over.
 */
struct kmesh_http_port {
	__u64 grammar;
	__u64 graph;
	__u64 table; /* 0: there is no room for it, nor for the others; all of it is a waypoint's */
	__u64 waypoint; /* the cluster of its waypoint's instances (the loader writes); 0: none */
	__u64 answers;	/* what it answers without an endpoint, a digest of it (http_answers) */
};

struct kmesh_route_key {
	__u64 table;
	__u32 route; /* its index, as kmesh_http_match() gives it */
	__u32 pad;
};

#define KMESH_ROUTE_FORWARD  1
#define KMESH_ROUTE_ANSWER   2 /* with `status` and nothing else */
#define KMESH_ROUTE_WAYPOINT 3 /* neither the kernel nor the gate can do all of it; a text: why */
#define KMESH_ROUTE_REDIRECT 4 /* with `status`, and a text of four parts */
#define KMESH_ROUTE_GOVERNED 5 /* forward, after a step that is the gate's alone */

#define KMESH_ROUTE_CLUSTERS 16
#define KMESH_ROUTE_HASHES   4

#define KMESH_HASH_VALUE    1 /* the value at a place of the head */
#define KMESH_HASH_COOKIE   2
#define KMESH_HASH_SOURCE   3
#define KMESH_HASH_KIND	    0xff
#define KMESH_HASH_TERMINAL 0x10000 /* with a value, no other is asked for */

/* Flags of a route. */
#define KMESH_ROUTE_STRIP_QUERY 1 /* of a redirect: the query is left out */
#define KMESH_ROUTE_PREFIX	2 /* its path stands for the first `matched` bytes of the request's */
#define KMESH_ROUTE_PATH	4 /* its path stands for all of it */
#define KMESH_ROUTE_LIMIT_FIRST 8 /* the rate limit comes before the fault */

#define KMESH_ROUTE_ALL 0xffffffff /* `matched`: the whole path without its query */

/*
 * Texts are in the table's (http_texts): the body of an answer; of a redirect scheme, host, port
 * with its colon and path, each ended by a zero byte, empty where the request's is kept.
 */
struct kmesh_route {
	__u32 kind;
	__u32 status;
	__u32 total; /* of weights[] */
	__u32 stat;  /* where its requests are counted (kmesh/stat_types.h) */
	__u64 clusters[KMESH_ROUTE_CLUSTERS];
	__u32 weights[KMESH_ROUTE_CLUSTERS];
	__u32 flags;
	__u32 answer; /* which of the port's answers every request gets; 0: none, or not always */
	__u32 text;   /* where it begins */
	__u32 text_size;
	__u32 matched;
	/* A fault: `abort_share` of `abort_of` requests get this status. */
	__u32 abort_status;
	__u32 abort_share;
	__u32 abort_of;
	/* A rate limit: `limit_share` of `limit_of` requests take a token, or get this status. */
	__u32 limit_status;
	__u32 limit_share;
	__u32 limit_of;
	__u32 limit_most;   /* tokens in the bucket */
	__u32 limit_tokens; /* that come each `limit_ms` */
	__u32 limit_ms;
	__u64 bucket; /* its number; 0: no limit */
	/* What of a request chooses the endpoint, in order; 0: nothing more. */
	__u32 hash[KMESH_ROUTE_HASHES];	     /* kind, place << 8, KMESH_HASH_TERMINAL */
	__u32 hash_name[KMESH_ROUTE_HASHES]; /* of a cookie: where its name is in the texts */
	/* Which clients may, where not all do: a ruling among the texts (runtime/gate/ruling.h). */
	__u32 ruling;
	__u32 ruling_size; /* 0: it is the same for all */
};

/*
 * A response without an endpoint that is the same each time but for its date. The kernel gives it
 * where it may (bpf/include/kmesh/respond.h), else the gate, in the same bytes.
 */
#define KMESH_ANSWER_NO_ROUTE 0 /* the first of each port: no route takes the request */
#define KMESH_ANSWER_MOST     1008
#define KMESH_DATE	      29 /* bytes of a date (RFC 9110, 5.6.7) */
#define KMESH_DATE_ROOM	      32

struct kmesh_answer {
	__u32 size;
	__u32 date; /* where the date is in it */
	__u32 status;
	__u32 pad;
	__u8 text[KMESH_ANSWER_MOST];
};

/* The time of day, which programs cannot ask for: the gate's. */
struct kmesh_clock {
	__u64 until; /* ns, CLOCK_MONOTONIC: after it this is not the time any more */
	__u32 current;
	__u32 pad;
	__u8 dates[2 * KMESH_DATE_ROOM]; /* the one that is not `current` may be being written */
};

/*
 * Where a cluster that hashes finds its endpoints: a power of two of buckets, each the index of an
 * endpoint, behind their number; and behind them the endpoints (struct kmesh_endpoint, in three
 * elements each).
 */
struct kmesh_http_cluster_key {
	__u64 cluster;
};

/* Flags of a cluster. */
#define KMESH_CLUSTER_SPLIT	 1  /* failed connections are counted apart from responses */
#define KMESH_CLUSTER_ALWAYS_ONE 2  /* one endpoint may be ejected whatever `max_percent` says */
#define KMESH_CLUSTER_LOCALITIES 4  /* localities share by their weights */
#define KMESH_CLUSTER_IN_TURN	 8  /* endpoints that weigh the same are taken in turn */
#define KMESH_CLUSTER_LEAST	 16 /* of `choices` endpoints the one with the fewest requests */

#define KMESH_NO_BOUND 0xffffffff

/*
 * What the gate does for a cluster that it alone chooses endpoints of: such a cluster is not in
 * `clusters`, so the kernel passes its requests. Of each network namespace, as of each sidecar.
 * Without `members` the kernel chooses too, and `ring` and `connect_ms` are all that is said.
 */
struct kmesh_http_cluster {
	__u64 ring;    /* a digest of it, its key in http_rings; 0: it does not hash */
	__u64 members; /* the set of its endpoints in http_members; 0: the kernel chooses */
	__u32 member_count;
	__u32 flags;
	/* Circuit breakers: KMESH_NO_BOUND for none. */
	__u32 max_connections;
	__u32 max_pending; /* requests that wait for a connection */
	__u32 max_requests;
	__u32 connection_requests; /* then a connection is closed */
	/* Outlier detection: failures in a row after which an endpoint is ejected; 0: never. */
	__u32 consecutive_5xx;
	__u32 consecutive_gateway;
	__u32 consecutive_local;
	__u32 interval_ms;
	__u32 base_ms; /* out for so long, times how often */
	__u32 max_ms;
	__u32 max_percent; /* of the endpoints are out at a time */
	/* Choosing. */
	__u32 panic_percent;	/* with fewer healthy endpoints all are used */
	__u32 overprovisioning; /* percent */
	__u32 choices;
	__u32 connect_ms; /* a connection that takes longer has failed; 0: the gate's default */
	__u32 pad;
};

struct kmesh_http_member_key {
	__u64 set;   /* a digest of all of it */
	__u32 place; /* in it, from 0 on */
	__u32 pad;
};

#define KMESH_MEMBER_HEALTHY 1 /* says who knows the endpoints */

struct kmesh_http_member {
	__be32 address[4];
	__be16 port;
	__u16 flags;
	__u32 weight;
	__u32 priority; /* lower ones first */
	__u32 locality; /* a number of the set's own */
	__u32 locality_weight;
	__u32 pad;
};

/* A bucket of tokens, which come steadily: as many as since this time, at most as it holds. */
struct kmesh_bucket_key {
	__u64 number;
};

struct kmesh_bucket {
	__s64 since; /* ns, CLOCK_MONOTONIC; the gate's */
};

struct kmesh_gate_settings {
	__u32 paused;	/* the kernel takes nothing: one gate hands over to the next */
	__u32 prepared; /* a gate has filled the maps */
	__u32 logs; /* one in so many requests is for the access log; 0: none (the gate writes) */
	__u32 pad;
};

/* Why a message was passed to the gate, or that it was not. */
enum kmesh_gate_counter {
	KMESH_TAKEN,		  /* requests that went from the kernel to an endpoint */
	KMESH_NOT_IDLE,		  /* an earlier request is not answered yet */
	KMESH_NOT_WHOLE,	  /* the message is no whole request */
	KMESH_NOT_ROUTED,	  /* no route of the kernel's */
	KMESH_NO_UPSTREAM,	  /* no idle connection to the endpoint */
	KMESH_QUEUE_FULL,	  /* the upstream's send queue is full, or it is closing */
	KMESH_NO_SLOT,		  /* connections without a slot */
	KMESH_PASSED_PAUSED,	  /* while one gate hands over to the next */
	KMESH_WENT_HOME,	  /* responses that went from the kernel to the client */
	KMESH_REQUESTS_SHORTENED, /* requests taken that went past TCP, to an endpoint of this node
				   */
	KMESH_ANSWERED, /* requests that the kernel answered itself, without an endpoint */
	KMESH_GATE_COUNTERS,
};

#endif
