// SPDX-License-Identifier: GPL-2.0-only
#include "frame.h"
#include <string.h>

enum chunk_state {
	SIZE_FIRST,
	SIZE,
	EXTENSION,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	LAST_CR, /* or a trailer's first byte */
	LAST_LF,
	TRAILER_NAME,
	TRAILER_VALUE,
	TRAILER_LF,
	OVER,
};

static int hex(unsigned char byte)
{
	if (byte >= '0' && byte <= '9')
		return byte - '0';
	byte |= 32;
	return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Of an extension or a trailer: no byte that any reader could take for the end of a line. */
static bool is_text(unsigned char byte)
{
	return byte == '\t' || (byte >= ' ' && byte != 0x7f);
}

static bool is_token(unsigned char byte)
{
	return byte > ' ' && byte < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", byte);
}

static unsigned int name_step(unsigned int hash, unsigned char byte)
{
	return (hash ^ (byte | 32)) * 16777619u;
}

/* A trailer must not say where the message ends or whom it is for (RFC 9110 6.5.1). */
static bool is_framing(unsigned int hash)
{
	static const char *const names[] = {"host", "content-length", "transfer-encoding"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		unsigned int of_name = 0;

		for (const char *at = names[i]; *at; at++)
			of_name = name_step(of_name, *at);
		if (of_name == hash)
			return true;
	}
	return false;
}

static bool trailer_step(struct frame *frame, unsigned char byte)
{
	switch (frame->chunk_state) {
	case LAST_CR:
		frame->chunk_state = byte == '\r' ? LAST_LF : TRAILER_NAME;
		frame->trailer = name_step(0, byte);
		return byte == '\r' || is_token(byte);
	case TRAILER_NAME:
		if (byte == ':') {
			frame->chunk_state = TRAILER_VALUE;
			return !is_framing(frame->trailer);
		}
		frame->trailer = name_step(frame->trailer, byte);
		return is_token(byte);
	case TRAILER_VALUE:
		if (byte == '\r')
			frame->chunk_state = TRAILER_LF;
		return byte == '\r' || is_text(byte);
	case TRAILER_LF:
		frame->chunk_state = LAST_CR;
		return byte == '\n';
	case LAST_LF:
		frame->chunk_state = OVER;
		return byte == '\n';
	default:
		return false;
	}
}

/* One byte of framing, RFC 9112 7.1. False: not that, or only by a reader's leave. */
static bool chunk_step(struct frame *frame, unsigned char byte)
{
	int digit = hex(byte);

	switch (frame->chunk_state) {
	case SIZE_FIRST:
	case SIZE:
		if (digit >= 0) {
			if (frame->chunk_left >> 56)
				return false;
			frame->chunk_left = frame->chunk_left << 4 | digit;
			frame->chunk_state = SIZE;
			return true;
		}
		if ((byte != '\r' && byte != ';') || frame->chunk_state == SIZE_FIRST)
			return false;
		frame->chunk_state = byte == ';' ? EXTENSION : SIZE_LF;
		return true;
	case EXTENSION:
		if (byte == '\r')
			frame->chunk_state = SIZE_LF;
		return byte == '\r' || is_text(byte);
	case SIZE_LF:
		frame->chunk_state = frame->chunk_left ? DATA : LAST_CR;
		return byte == '\n';
	case DATA_CR:
		frame->chunk_state = DATA_LF;
		return byte == '\r';
	case DATA_LF:
		frame->chunk_state = SIZE_FIRST;
		return byte == '\n';
	default:
		return trailer_step(frame, byte);
	}
}

static bool chunks_are_right(struct frame *frame, const char *data, size_t length)
{
	while (length) {
		size_t step = 1;

		if (frame->chunk_state == DATA) {
			step = frame->chunk_left < length ? frame->chunk_left : length;
			frame->chunk_left -= step;
			if (!frame->chunk_left)
				frame->chunk_state = DATA_CR;
		} else if (!chunk_step(frame, *data)) {
			return false;
		}
		data += step;
		length -= step;
	}
	return true;
}

static int on_headers(llhttp_t *parser)
{
	struct frame *frame = parser->data;

	frame->headed = true;
	frame->strict = parser->type == HTTP_REQUEST && parser->flags & F_CHUNKED;
	if (frame->tunnels && parser->status_code / 100 == 2)
		return 2;
	/* The head's last byte must be found by itself: the body is looked at twice. */
	return frame->bodiless ? 1 : frame->strict ? HPE_PAUSED : 0;
}

static int on_message(llhttp_t *parser)
{
	struct frame *frame = parser->data;

	frame->keeps = llhttp_should_keep_alive(parser);
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_headers_complete = on_headers,
	.on_message_complete = on_message,
};

static void begin(struct frame *frame, llhttp_type_t type)
{
	llhttp_init(&frame->parser, type, &settings);
	frame->parser.data = frame;
}

void frame_request(struct frame *frame)
{
	*frame = (struct frame){};
	begin(frame, HTTP_REQUEST);
}

void frame_response(struct frame *frame, bool bodiless, bool tunnels)
{
	*frame = (struct frame){.bodiless = bodiless, .tunnels = tunnels};
	begin(frame, HTTP_RESPONSE);
}

bool frame_is_interim(const struct frame *frame)
{
	return frame->parser.status_code / 100 == 1 && frame->parser.status_code != 101;
}

static size_t stopped_at(const struct frame *frame, const char *data)
{
	return llhttp_get_error_pos(&frame->parser) - data;
}

static enum frame_result ending(const struct frame *frame)
{
	const llhttp_t *parser = &frame->parser;

	if (parser->type == HTTP_RESPONSE && (parser->status_code == 101 || frame->tunnels) &&
	    parser->upgrade)
		return FRAME_UPGRADE;
	return FRAME_END;
}

static enum frame_result body(struct frame *frame, const char *data, size_t length, size_t *used)
{
	llhttp_errno_t error = llhttp_execute(&frame->parser, data, length);

	*used = error == HPE_OK ? length : stopped_at(frame, data);
	if (error != HPE_OK && error != HPE_PAUSED && error != HPE_PAUSED_UPGRADE)
		return FRAME_BAD;
	if (frame->strict) {
		bool over;

		if (!chunks_are_right(frame, data, *used))
			return FRAME_BAD;
		over = frame->chunk_state == OVER;
		if (over != (error != HPE_OK))
			return FRAME_BAD;
	}
	return error == HPE_OK ? FRAME_MORE : ending(frame);
}

enum frame_result frame_feed(struct frame *frame, const char *data, size_t length, size_t *used)
{
	llhttp_errno_t error;
	enum frame_result result;
	size_t head;

	if (frame->headed)
		return body(frame, data, length, used);
	error = llhttp_execute(&frame->parser, data, length);
	if (error == HPE_OK) {
		*used = length;
		return FRAME_MORE;
	}
	if (error != HPE_PAUSED && error != HPE_PAUSED_UPGRADE)
		return FRAME_BAD;
	*used = head = stopped_at(frame, data);
	if (!frame->strict)
		return ending(frame);
	llhttp_resume(&frame->parser);
	result = body(frame, data + head, length - head, used);
	*used += head;
	return result;
}

bool frame_finish(struct frame *frame)
{
	llhttp_errno_t error = llhttp_finish(&frame->parser);

	return frame->headed && (error == HPE_OK || error == HPE_PAUSED);
}

/* llhttp counts what is left of a body that has a length, and does nothing else with it. */
uint64_t frame_blind(const struct frame *frame)
{
	const llhttp_t *parser = &frame->parser;

	if (!frame->headed || frame->bodiless || parser->flags & F_CHUNKED ||
	    !(parser->flags & F_CONTENT_LENGTH) || !parser->content_length)
		return 0;
	return parser->content_length - 1;
}

void frame_skip(struct frame *frame, uint64_t length)
{
	frame->parser.content_length -= length;
}
