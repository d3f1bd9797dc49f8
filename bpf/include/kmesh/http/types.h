/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What reading and routing an HTTP/1.1 request head is made of. The tables are written by
 * runtime/tables/http_*.py; their layout is defined here and nowhere else.
 *
 * A grammar reads a head: an automaton that steps once for each byte, refuses at the first byte
 * that is not plainly right, and notes where things are. A graph routes: each node is an automaton
 * over one value (the host, the path, a header...), and where that value ends stands the next node,
 * or the outcome. Neither costs more with more routes, only with more bytes.
 *
 * The same code is compiled for the kernel, for the gate and for the tests.
 */
#ifndef KMESH_HTTP_TYPES_H
#define KMESH_HTTP_TYPES_H

#include <linux/types.h>

#define KMESH_HTTP_HEAD_MAX   8192 /* bytes of a head, its empty line included */
#define KMESH_HTTP_FIELDS_MAX 100  /* lines after its first; Envoy refuses more (431) */

/*
 * What kmesh_http_parse() and kmesh_http_match() return. From KMESH_HTTP_MALFORMED on it is a
 * refusal to route: a reason, to be counted, and the request is passed on unrouted.
 */
enum kmesh_http_verdict {
	KMESH_HTTP_OK = 0,
	KMESH_HTTP_INCOMPLETE = 1, /* more bytes are needed */
	KMESH_HTTP_MALFORMED = 2,
	KMESH_HTTP_TOO_LONG = 3,
	KMESH_HTTP_BAD_METHOD = 4,  /* or one that is not routed here: CONNECT, TRACE */
	KMESH_HTTP_BAD_TARGET = 5,  /* not origin-form, or bytes that Envoy would not leave alone */
	KMESH_HTTP_DOT_SEGMENT = 6, /* Envoy would resolve it */
	KMESH_HTTP_ESCAPE = 7,	    /* Envoy would decode it, or it is none */
	KMESH_HTTP_VERSION = 8,	    /* other than HTTP/1.1 */
	KMESH_HTTP_LINE_END = 9,    /* other than CR LF */
	KMESH_HTTP_BAD_NAME = 10,
	KMESH_HTTP_BAD_VALUE = 11,
	KMESH_HTTP_FOLDED = 12,
	KMESH_HTTP_BAD_HOST = 13,
	KMESH_HTTP_NO_HOST = 14,
	KMESH_HTTP_TWICE = 15, /* a header or query parameter that matters is there twice */
	KMESH_HTTP_BAD_LENGTH = 16,
	KMESH_HTTP_BAD_ENCODING = 17,
	KMESH_HTTP_TWO_LENGTHS = 18, /* Content-Length and Transfer-Encoding */
	KMESH_HTTP_BAD_CONNECTION = 19,
	KMESH_HTTP_NO_TABLE = 20,  /* or one that is damaged */
	KMESH_HTTP_UNDECIDED = 21, /* what would decide did not fit into the tables */
	KMESH_HTTP_MANY_FIELDS = 22,
	KMESH_HTTP_VERDICTS = 23,

	KMESH_HTTP_MORE = 63, /* of one step of several: go on */
};

/* Places in a head, by number: kmesh_http_head.start[] and end[], and bits of kmesh_http_head.seen.
 */
#define KMESH_HTTP_NOWHERE   0
#define KMESH_HTTP_HOST	     1 /* without its port */
#define KMESH_HTTP_AUTHORITY 2 /* the Host header's value */
#define KMESH_HTTP_METHOD    3
#define KMESH_HTTP_PATH	     4 /* without the query */
#define KMESH_HTTP_TARGET    5
#define KMESH_HTTP_LENGTH    6	/* the Content-Length header's value */
#define KMESH_HTTP_SPACE     7	/* begins where the target has ended */
#define KMESH_HTTP_SLOT	     16 /* the first of what this table asks for: headers, parameters */
#define KMESH_HTTP_SLOTS     16
#define KMESH_HTTP_PLACES    32

/* Further bits of kmesh_http_head.seen. */
#define KMESH_HTTP_SEEN_CHUNKED	   32
#define KMESH_HTTP_SEEN_CONNECTION 33 /* the header is there */
#define KMESH_HTTP_SEEN_CLOSE	   34 /* Connection: close */
#define KMESH_HTTP_SEEN_KEEP_ALIVE 35
#define KMESH_HTTP_SEEN_UPGRADE	   36 /* Connection: upgrade, or an Upgrade header */
#define KMESH_HTTP_SEEN_EXPECT	   37
#define KMESH_HTTP_SEEN_HOP	   38 /* TE, Trailer, Proxy-*, Keep-Alive: a hop's own */
#define KMESH_HTTP_SEEN_ENVOY	   39 /* x-envoy-*: asks something of an Envoy */

#define KMESH_HTTP_BIT(n) (1ULL << (n))

/* There at most once, or the head is refused: what two readers might not see the same of two. */
#define KMESH_HTTP_ONCE                                                                            \
	(0xfffffffeULL | KMESH_HTTP_BIT(KMESH_HTTP_SEEN_CHUNKED) |                                 \
	 KMESH_HTTP_BIT(KMESH_HTTP_SEEN_CONNECTION))

/* With any of these it takes more than handing the bytes on; the head is routed all the same. */
#define KMESH_HTTP_NOT_PLAIN                                                                       \
	(KMESH_HTTP_BIT(KMESH_HTTP_SEEN_CHUNKED) | KMESH_HTTP_BIT(KMESH_HTTP_SEEN_CLOSE) |         \
	 KMESH_HTTP_BIT(KMESH_HTTP_SEEN_UPGRADE) | KMESH_HTTP_BIT(KMESH_HTTP_SEEN_EXPECT) |        \
	 KMESH_HTTP_BIT(KMESH_HTTP_SEEN_HOP) | KMESH_HTTP_BIT(KMESH_HTTP_SEEN_ENVOY))

/* A head that was read. Places not seen are empty. */
struct kmesh_http_head {
	__u64 seen;
	__u64 content_length; /* 0 without the header */
	__u32 length;	      /* bytes of the head: the body begins here */
	__u32 pad;
	__u16 start[KMESH_HTTP_PLACES];
	__u16 end[KMESH_HTTP_PLACES]; /* one past the last byte */
};

/*
 * Heads are read, and routed, in pieces of so many bytes: each is a call of a function that the
 * verifier walks once, however long a head may be. In a value that matters to nobody a step of
 * reading is one byte and a word.
 */
#define KMESH_HTTP_PIECE 256 /* a power of two */

/* Where reading a head is: between two pieces. */
struct kmesh_http_reading {
	__u64 seen;
	__u64 twice;
	__u32 state;
	__u32 fields;
	__u32 at;
	__u32 pad;
};

/* Where a walk through a graph is: between two pieces. */
struct kmesh_http_walk {
	__u32 state;
	__u32 otherwise;
	__u32 steps;
	/* The value that is compared: where the next byte is, where none is left, and whether there
	 * is one. */
	__u16 at;
	__u16 end;
	__u16 absent;
	__u16 pad[3];
};

/*
 * One step of a grammar. A state is the number of a move; its step for a byte is the move at state
 * + byte, if that is for this byte (no two states have one number), else the head is refused for
 * the reason that is `next` of the state's move for byte 0. Numbers below KMESH_HTTP_STOPS are
 * verdicts, KMESH_HTTP_READ that all is read.
 */
#define KMESH_HTTP_STOPS 64
#define KMESH_HTTP_READ	 63
#define KMESH_HTTP_MOVES 32768 /* a power of two */

struct kmesh_http_move {
	__u16 next;
	__u8 byte;
	__u8 bit;   /* of `seen`; 0: none */
	__u8 first; /* place that starts with this byte; 0: none */
	__u8 last;  /* place that ends with this byte, so far; 0: none */
	__u8 field; /* 1: a header begins */
	__u8 pad;
};

/*
 * moves[0].next is the first state. moves[1].next is the one within the values that matter to
 * nobody, which most bytes are: it stays what it is with all that is no control character.
 */
struct kmesh_http_grammar {
	struct kmesh_http_move moves[KMESH_HTTP_MOVES];
};

/*
 * One step of a graph, in the same way: the cell at state + byte, if that is for this byte, else
 * the step is to the state's `otherwise`, whose own `otherwise` is itself. Two bytes that are in no
 * value stand for its end.
 */
#define KMESH_HTTP_END	  0 /* of a value */
#define KMESH_HTTP_ABSENT 1 /* there is none */

struct kmesh_http_cell {
	__u32 next;
	__u32 otherwise; /* of the next state */
	__u32 byte;
	/* At the end of a value: the place of the next, or KMESH_HTTP_DECIDED with the outcome in
	 * `next`. */
	__u32 action;
};

#define KMESH_HTTP_DECIDED 64

/* Outcomes; all others are the index of a route in its table, through all virtual hosts. */
#define KMESH_HTTP_NO_ROUTE 0xffffffff /* the virtual host has none for this: 404 */
#define KMESH_HTTP_NO_VHOST 0xfffffffe /* nobody of that name: 404 */
#define KMESH_HTTP_NO_IDEA  0xfffffffd /* becomes the verdict KMESH_HTTP_UNDECIDED */

struct kmesh_http_outcome {
	__u32 route;
	__u32 steps; /* taken: bytes looked at and values ended */
};

/* A route table in force: what reads the heads and what routes them. */
struct kmesh_http_set {
	__u64 grammar; /* digests of what is in them, keys of the maps below */
	__u64 graph;
};

#endif
