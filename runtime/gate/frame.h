/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a message ends: llhttp, the parser of Node.js, and for chunked requests a second opinion.
 * llhttp forgives line ends and extensions that a server may read otherwise; a request whose end is
 * a matter of opinion must not share a connection with anyone else's.
 */
#ifndef KMESH_GATE_FRAME_H
#define KMESH_GATE_FRAME_H

#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum frame_result {
	FRAME_MORE,    /* all of the bytes belong to the message, which goes on */
	FRAME_END,     /* the message ends within the bytes */
	FRAME_UPGRADE, /* the same, and what follows is another protocol */
	FRAME_BAD,
};

struct frame {
	llhttp_t parser;
	bool bodiless; /* a response without a body, whatever its head says: to HEAD */
	bool tunnels;  /* a response to CONNECT */
	bool headed;   /* the head has been read */
	bool keeps;    /* the connection may be used again */
	bool strict;   /* a chunked request */
	unsigned char chunk_state;
	unsigned int trailer; /* a name, in few bits */
	unsigned long long chunk_left;
};

void frame_request(struct frame *frame);
void frame_response(struct frame *frame, bool bodiless, bool tunnels);
/* `used`: the bytes that belong to the message. */
enum frame_result frame_feed(struct frame *frame, const char *data, size_t length, size_t *used);
/*
 * After FRAME_MORE: bytes of the body to come that need not be looked at, which never are all of
 * them; and that so many have passed by.
 */
uint64_t frame_blind(const struct frame *frame);
void frame_skip(struct frame *frame, uint64_t length);
/* At the end of the stream: whether that is the end of the message too. */
bool frame_finish(struct frame *frame);
/* An interim response (1xx) is no response yet. */
bool frame_is_interim(const struct frame *frame);

#endif
