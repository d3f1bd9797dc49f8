/* SPDX-License-Identifier: GPL-2.0-only */
/* Reading a response that is there whole: its head says how long it is, in one way only. */
#ifndef KMESH_HTTP_RESPONSE_H
#define KMESH_HTTP_RESPONSE_H

#include <kmesh/compiler.h>
#include <kmesh/http/response_table.h>
#include <kmesh/http/word.h>

#define KMESH_RESPONSE_HEAD 2048 /* a longer head goes by the gate */
#define KMESH_RESPONSE_STEPS                                                                       \
	512 /* so does one with more; within a value one is a byte and a word */

/* Of a whole response of `size` bytes with nothing after it: its status, else 0. */
static __always_inline __u32 kmesh_http_whole_status(const __u8 *data, const __u8 *end, __u32 size)
{
	__u32 state = KMESH_RESPONSE_START, length = 0;
	__u64 at = kmesh_http_nought();

	for (kmesh_counter step = 0; step < KMESH_RESPONSE_STEPS; step++) {
		const __u8 *byte;
		__u32 entry, is_digit;
		__u64 cell;

		KMESH_HTTP_MASK(at, 2 * KMESH_RESPONSE_HEAD - 1);
		byte = data + at;
		if (at >= KMESH_RESPONSE_HEAD || byte + 1 > end)
			break;
		cell = state << 8 | *byte;
		KMESH_HTTP_MASK(cell, KMESH_RESPONSE_CELLS - 1);
		entry = kmesh_response_table[cell];
		is_digit = entry >> 8 & 1;
		length = length * (1 + 9 * is_digit) + (*byte & 15) * is_digit;
		state = entry & 255;
		at += 1;
		if (state < KMESH_RESPONSE_START)
			break;
		if (entry & KMESH_RESPONSE_DULL && byte + 1 + KMESH_HTTP_WORD <= end)
			at += KMESH_HTTP_WORD & kmesh_http_visible(kmesh_http_word_at(byte + 1));
	}
	if (state != KMESH_RESPONSE_END || at + length != size || data + 12 > end)
		return 0;
	return (data[9] & 15) * 100 + (data[10] & 15) * 10 + (data[11] & 15);
}

#endif
