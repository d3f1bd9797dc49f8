// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
/* Framing as one call: bytes in pieces, and where the message was found to end. For the tests. */
#include "../../runtime/gate/frame.h"
#include "../../runtime/gate/head.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { KIND_REQUEST, KIND_RESPONSE, KIND_RESPONSE_TO_HEAD, KIND_RESPONSE_TO_CONNECT };

/* Each piece in memory of its own, so that a read past its end is seen. */
static enum frame_result feed_copy(struct frame *frame, const char *data, size_t length,
				   size_t *used)
{
	char *copy = malloc(length ? length : 1);
	enum frame_result result;

	memcpy(copy, data, length);
	result = frame_feed(frame, copy, length, used);
	free(copy);
	return result;
}

/* Bytes that are counted and not looked at, as when they are spliced. */
static size_t pass_by(struct frame *frame, size_t length)
{
	uint64_t blind = frame_blind(frame);

	if (blind < length)
		length = blind;
	frame_skip(frame, length);
	return length;
}

/*
 * The result, and in `end` the bytes that belong to the message. `blindly`: what need not be looked
 * at is not.
 */
int frame_run(int kind, const char *data, size_t length, const uint32_t *cuts, size_t count,
	      int blindly, size_t *end)
{
	struct frame frame;
	enum frame_result result = FRAME_MORE;
	size_t at = 0;

	if (kind == KIND_REQUEST)
		frame_request(&frame);
	else
		frame_response(&frame, kind == KIND_RESPONSE_TO_HEAD,
			       kind == KIND_RESPONSE_TO_CONNECT);
	for (size_t i = 0; i <= count && result == FRAME_MORE; i++) {
		size_t to = i < count ? cuts[i] : length, used = 0;

		if (to <= at || to > length)
			continue;
		if (blindly && at) {
			at += pass_by(&frame, to - at);
			if (at == to)
				continue;
		}
		result = feed_copy(&frame, data + at, to - at, &used);
		if (result == FRAME_MORE && used != to - at)
			abort();
		if (used > to - at && result != FRAME_BAD)
			abort();
		at += result == FRAME_BAD ? 0 : used;
	}
	*end = at;
	return result;
}

/* The judgement of a copy, so that a read past its end is seen. */
int head_run(const char *data, size_t length)
{
	char *copy = malloc(length ? length : 1);
	enum head_kind kind;

	memcpy(copy, data, length);
	kind = head_judge(copy, length);
	free(copy);
	return kind;
}

#ifdef FUZZ
/*
 * What more bytes cannot change: that a head is no plain one, and what is plain was never unsure.
 * And a plain one is a request to the parser that reads it afterwards.
 */
static void check_head(const char *data, size_t size, const uint32_t *cuts, int count)
{
	int whole = head_run(data, size);
	size_t end;

	for (int i = 0; i < count; i++) {
		int part = cuts[i] < size ? head_run(data, cuts[i]) : whole;

		if (part == HEAD_UNSURE && whole != HEAD_UNSURE)
			abort();
		if (part == HEAD_PLAIN && whole == HEAD_MORE)
			abort();
	}
	if (whole == HEAD_PLAIN &&
	    frame_run(KIND_REQUEST, data, size, NULL, 0, 0, &end) == FRAME_BAD)
		abort();
}

/* However the bytes are cut, the message ends in the same place, or is bad. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t whole, cut;
	uint32_t cuts[8];
	int result, again, blind;

	if (size < 9)
		return 0;
	for (int i = 0; i < 8; i++)
		cuts[i] = (i ? cuts[i - 1] : 0) + data[1 + i];
	result = frame_run(data[0] & 3, (const char *)data + 9, size - 9, NULL, 0, 0, &whole);
	again = frame_run(data[0] & 3, (const char *)data + 9, size - 9, cuts, 8, 0, &cut);
	if (result != again || (result != FRAME_BAD && whole != cut))
		abort();
	blind = frame_run(data[0] & 3, (const char *)data + 9, size - 9, cuts, 8, 1, &cut);
	if (result != blind || (result != FRAME_BAD && whole != cut))
		abort();
	check_head((const char *)data + 9, size - 9, cuts, 8);
	return 0;
}
#endif

#ifdef FUZZ_HEAD
static const char length_field[] = "\ncontent-length:", coding_field[] = "\ntransfer-encoding:";

/* What no head may have that all readers end in the same place; `text` ends with a zero byte. */
static void check_plain(const char *text, size_t size)
{
	const char *length = strcasestr(text, length_field);
	const char *coding = strcasestr(text, coding_field);

	if (strlen(text) != size || size < 4 || strcmp(text + size - 4, "\r\n\r\n"))
		abort();
	for (size_t i = 0; i < size; i++)
		if ((text[i] == '\n') != (i && text[i - 1] == '\r'))
			abort();
	if (strstr(text, "\n ") || strstr(text, "\n\t") || (length && coding))
		abort();
	if ((length && strcasestr(length + 1, length_field)) ||
	    (coding && strcasestr(coding + 1, coding_field)))
		abort();
}

/* As it comes, byte by byte: what is unsure stays so, and what is plain ends with its empty line.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int kind, before = HEAD_MORE;
	char text[512];

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	for (size_t length = 0; length <= size; length++, before = kind) {
		kind = head_run(text, length);
		if (before == HEAD_UNSURE ? kind != HEAD_UNSURE
					  : before == HEAD_PLAIN && kind == HEAD_MORE)
			abort();
		if (kind == HEAD_PLAIN && before == HEAD_MORE) {
			text[length] = 0;
			check_plain(text, length);
			memcpy(text, data, size);
		}
	}
	return 0;
}
#endif
