/* SPDX-License-Identifier: GPL-2.0-only */
/* Reading a request head: RFC 9112, without its tolerance. */
#ifndef KMESH_HTTP_PARSE_H
#define KMESH_HTTP_PARSE_H

#include <kmesh/http/word.h>

#define KMESH_HTTP_DIGITS 18 /* of a Content-Length; the grammar allows no more */

static __always_inline int kmesh_http_was_seen(const struct kmesh_http_head *head, __u32 bit)
{
	return head->seen >> bit & 1;
}

/* The decimal number at a place that holds digits alone. */
static __always_inline __u64 kmesh_http_number(const struct kmesh_http_input *in, __u64 start,
					       __u64 size)
{
	__u64 value = 0;

	KMESH_HTTP_MASK(start, KMESH_HTTP_HEAD_MAX - 1);
	KMESH_HTTP_FLAT_LOOP
	for (__u32 i = 0; i < KMESH_HTTP_DIGITS; i++) {
		const __u8 *digit = in->data + start + i;

		if (i >= size || digit + 1 > in->end)
			break;
		value = value * 10 + (*digit & 15);
	}
	return value;
}

/* What can only be judged when all of the head has been seen. */
static __always_inline int kmesh_http_conclude(const struct kmesh_http_input *in,
					       struct kmesh_http_head *head)
{
	if (!kmesh_http_was_seen(head, KMESH_HTTP_HOST))
		return KMESH_HTTP_NO_HOST;
	head->start[KMESH_HTTP_AUTHORITY] = head->start[KMESH_HTTP_HOST];
	if (!head->end[KMESH_HTTP_AUTHORITY])
		head->end[KMESH_HTTP_AUTHORITY] = head->end[KMESH_HTTP_HOST];
	head->start[KMESH_HTTP_TARGET] = head->start[KMESH_HTTP_PATH];
	head->end[KMESH_HTTP_TARGET] = head->start[KMESH_HTTP_SPACE];
	head->seen |= KMESH_HTTP_BIT(KMESH_HTTP_AUTHORITY) | KMESH_HTTP_BIT(KMESH_HTTP_TARGET) |
		      KMESH_HTTP_BIT(KMESH_HTTP_PATH) | KMESH_HTTP_BIT(KMESH_HTTP_METHOD);
	if (!kmesh_http_was_seen(head, KMESH_HTTP_LENGTH))
		return KMESH_HTTP_OK;
	if (kmesh_http_was_seen(head, KMESH_HTTP_SEEN_CHUNKED))
		return KMESH_HTTP_TWO_LENGTHS;
	head->content_length =
		kmesh_http_number(in, head->start[KMESH_HTTP_LENGTH],
				  head->end[KMESH_HTTP_LENGTH] - head->start[KMESH_HTTP_LENGTH]);
	return KMESH_HTTP_OK;
}

static __always_inline void kmesh_http_begin(const struct kmesh_http_grammar *grammar,
					     struct kmesh_http_head *head,
					     struct kmesh_http_reading *reading)
{
	__builtin_memset(head, 0, sizeof(*head));
	reading->seen = 0;
	reading->twice = 0;
	reading->state = grammar->moves[0].next;
	reading->fields = 0;
	reading->at = 0;
}

/* No further byte is to be looked at: the last state, the one before it, and what was counted. */
static __always_inline int kmesh_http_finish(const struct kmesh_http_input *in,
					     const struct kmesh_http_grammar *grammar,
					     struct kmesh_http_head *head,
					     const struct kmesh_http_reading *reading, __u64 before)
{
	const struct kmesh_http_move *move;

	if (!reading->state) {
		KMESH_HTTP_MASK(before, KMESH_HTTP_MOVES - 1);
		move = &grammar->moves[before];
		return move->byte || move->next < KMESH_HTTP_MALFORMED ? KMESH_HTTP_MALFORMED
								       : move->next;
	}
	if (reading->state != KMESH_HTTP_READ)
		return reading->state;
	if (reading->twice & KMESH_HTTP_ONCE)
		return KMESH_HTTP_TWICE;
	if (reading->fields > KMESH_HTTP_FIELDS_MAX)
		return KMESH_HTTP_MANY_FIELDS;
	head->seen = reading->seen;
	head->length = reading->at + 1;
	return kmesh_http_conclude(in, head);
}

/*
 * Read the next piece of a head.
 *
 * Returns KMESH_HTTP_MORE when the piece was read and the head goes on, else what
 * kmesh_http_parse() returns.
 */
static __always_inline int kmesh_http_read(const struct kmesh_http_input *in,
					   const struct kmesh_http_grammar *grammar,
					   struct kmesh_http_head *head,
					   struct kmesh_http_reading *reading)
{
	__u64 state = reading->state, before = 0, seen = reading->seen, twice = reading->twice,
	      fields = reading->fields, at = reading->at, dull = grammar->moves[1].next;
	const struct kmesh_http_move *move;

	KMESH_HTTP_FLAT_LOOP
	for (__u32 step = 0; step < KMESH_HTTP_PIECE; step++) {
		__u64 bit, index, symbol;
		const __u8 *byte;

		/* Two ways come together here, which are to look alike: see kmesh_http_below(). */
		KMESH_HTTP_MASK(at, 2 * KMESH_HTTP_HEAD_MAX - 1);
		byte = in->data + at;
		KMESH_HTTP_GOTO_IF(byte + 1, <=, in->end, there);
		return at < KMESH_HTTP_HEAD_MAX ? KMESH_HTTP_INCOMPLETE : KMESH_HTTP_TOO_LONG;
	there:
		before = state;
		symbol = *byte;
		index = state + symbol;
		KMESH_HTTP_MASK(index, KMESH_HTTP_MOVES - 1);
		move = &grammar->moves[index];
		state = move->next & kmesh_http_below(symbol ^ move->byte, 1);
		index = move->first;
		KMESH_HTTP_MASK(index, KMESH_HTTP_PLACES - 1);
		head->start[index] = at;
		index = move->last;
		KMESH_HTTP_MASK(index, KMESH_HTTP_PLACES - 1);
		head->end[index] = at + 1;
		bit = KMESH_HTTP_BIT(move->bit & 63);
		twice |= seen & bit;
		seen |= bit;
		fields += move->field;
		KMESH_HTTP_GOTO_IF(state, >=, KMESH_HTTP_STOPS, next);
		break;
	next:
		at += 1;
		KMESH_HTTP_GOTO_IF(state, ==, dull, skip);
		continue;
	skip:
		KMESH_HTTP_GOTO_IF(byte + 1 + KMESH_HTTP_WORD, <=, in->end, word);
		continue;
	word:
		at += KMESH_HTTP_WORD & kmesh_http_visible(kmesh_http_word_at(byte + 1));
	}
	reading->seen = seen;
	reading->twice = twice;
	reading->state = state;
	reading->fields = fields;
	reading->at = at;
	if (at >= KMESH_HTTP_HEAD_MAX)
		return KMESH_HTTP_TOO_LONG;
	if (state < KMESH_HTTP_STOPS)
		return kmesh_http_finish(in, grammar, head, reading, before);
	return KMESH_HTTP_MORE;
}

/*
 * Read the head at the start of the input. (In the kernel piece by piece, each in a global function
 * of its own.)
 *
 * `head` and `reading` are memory that nobody else writes meanwhile: in the kernel the client's
 * socket storage, as its socket is locked. (Neither the stack, which cannot be indexed on 5.10, nor
 * a per-CPU map, as sk_msg programs can be preempted.)
 *
 * Returns KMESH_HTTP_OK, KMESH_HTTP_INCOMPLETE, or the reason of a refusal. With OK, `head` says
 * where things are, and the body begins at head->length.
 */
static __always_inline int kmesh_http_parse(const struct kmesh_http_input *in,
					    const struct kmesh_http_grammar *grammar,
					    struct kmesh_http_head *head)
{
	struct kmesh_http_reading reading;
	int verdict = KMESH_HTTP_MORE;

	kmesh_http_begin(grammar, head, &reading);
	while (verdict == KMESH_HTTP_MORE)
		verdict = kmesh_http_read(in, grammar, head, &reading);
	return verdict;
}

#endif
