// SPDX-License-Identifier: GPL-2.0-only
/* Framing as one call: bytes in pieces, and where the message was found to end. For the tests. */
#include "../../runtime/gate/frame.h"
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

/* The result, and in `end` the bytes that belong to the message. */
int frame_run(int kind, const char *data, size_t length, const uint32_t *cuts, size_t count,
	      size_t *end)
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

#ifdef FUZZ
/* However the bytes are cut, the message ends in the same place, or is bad. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t whole, cut;
	uint32_t cuts[8];
	int result, again;

	if (size < 9)
		return 0;
	for (int i = 0; i < 8; i++)
		cuts[i] = (i ? cuts[i - 1] : 0) + data[1 + i];
	result = frame_run(data[0] & 3, (const char *)data + 9, size - 9, NULL, 0, &whole);
	again = frame_run(data[0] & 3, (const char *)data + 9, size - 9, cuts, 8, &cut);
	if (result != again || (result != FRAME_BAD && whole != cut))
		abort();
	return 0;
}
#endif
