/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What became of requests, route by route. A route keeps its element when its table is replaced:
 * the loader gives elements out by name and writes the number into the route's row.
 */
#ifndef KMESH_STAT_TYPES_H
#define KMESH_STAT_TYPES_H

#include <kmesh/types.h>

#define KMESH_STATS	    16384
#define KMESH_STAT_OTHER    0 /* of routes for which there was no element left */
#define KMESH_STAT_UNROUTED 1 /* of requests that no route took, or that were refused */
#define KMESH_STAT_FIRST    2

#define KMESH_STAT_CLASSES 6  /* no response at all, then 1xx to 5xx */
#define KMESH_STAT_CODES   16 /* http_stats.py has the list too */
/* In the order in which they are in kmesh_route_stat.codes. */
#define KMESH_STAT_CODE_LIST                                                                       \
	{                                                                                          \
		200, 201, 204, 206, 301, 302, 304, 400, 401, 403, 404, 429, 500, 502, 503, 504     \
	}
#define KMESH_STAT_BUCKETS 26 /* bucket n: less than 2^n us; the last has all the rest */

enum kmesh_stat_by { KMESH_BY_KERNEL, KMESH_BY_GATE, KMESH_BY_WAYPOINT, KMESH_BY };

/* The gate adds, and for a moment two when one hands over to the next. */
struct kmesh_route_stat {
	__u64 name; /* the loader writes: whose element it is; 0: nobody's */
	__u64 requests[KMESH_BY * KMESH_STAT_CLASSES]; /* by who served, then by class */
	__u64 request_bytes[KMESH_BY];
	__u64 response_bytes[KMESH_BY];
	__u64 codes[KMESH_STAT_CODES];
	__u64 head_ns; /* of all requests together */
	__u64 end_ns;
	__u64 head[KMESH_STAT_BUCKETS]; /* until the response's head was there */
	__u64 end[KMESH_STAT_BUCKETS];	/* until all of it was */
};

/* The kernel adds, for each processor. */
struct kmesh_route_taken {
	__u64 requests;
	__u64 sent; /* bytes */
};

#define KMESH_STAT_VERDICTS 32

/* The gate's, beside what it counts by route. */
struct kmesh_gate_stat {
	__u64 verdicts[KMESH_STAT_VERDICTS]; /* heads that were not routed: enum kmesh_http_verdict
					      */
	__u64 log_dropped;		     /* lines of the access log that nobody read */
};

#define KMESH_LOG_TEXT 160 /* of a request's first line; what is longer is cut */

/* The start of a request that the kernel took, while there is an access log. */
struct kmesh_taken_head {
	__u32 length;
	char text[KMESH_LOG_TEXT];
};

#endif
