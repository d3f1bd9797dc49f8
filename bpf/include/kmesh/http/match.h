/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which route does a request take? Where any loop may be long, as in the gate:
 *
 *	verdict = kmesh_http_parse(&in, grammar, head);
 *	if (verdict == KMESH_HTTP_OK)
 *		verdict = kmesh_http_match(&in, head, graph, &outcome);
 *
 * In an sk_msg program the same in pieces, with kmesh_http_read() and kmesh_http_step() each in a
 * global function, called until they say other than KMESH_HTTP_MORE (bpf/enhanced/ has it).
 */
#ifndef KMESH_HTTP_MATCH_H
#define KMESH_HTTP_MATCH_H

#include <kmesh/http/input.h>
#include <kmesh/http/parse.h>

/* Bytes that are compared at most, and ends of values; no value is compared twice. */
#define KMESH_HTTP_STEPS                                                                           \
	((KMESH_HTTP_HEAD_MAX + 2 * KMESH_HTTP_PLACES + KMESH_HTTP_PIECE - 1) &                    \
	 ~(KMESH_HTTP_PIECE - 1))

/* The value that is compared, as in struct kmesh_http_walk, in registers. */
struct kmesh_http_value {
	__u64 at;
	__u64 end;
	__u64 absent;
};

static __always_inline void kmesh_http_turn_to(struct kmesh_http_value *value,
					       const struct kmesh_http_head *head, __u64 place)
{
	KMESH_HTTP_MASK(place, KMESH_HTTP_PLACES - 1);
	value->at = head->start[place];
	value->end = head->end[place];
	value->absent = ~head->seen >> place & 1;
}

/* Returns KMESH_HTTP_MORE, or KMESH_HTTP_NO_TABLE. */
static __always_inline int kmesh_http_enter(const struct kmesh_http_head *head,
					    kmesh_http_graph *graph, struct kmesh_http_walk *walk)
{
	const struct kmesh_http_cell *cell = kmesh_http_cell_of(graph, 0);
	struct kmesh_http_value value;

	if (!cell)
		return KMESH_HTTP_NO_TABLE;
	walk->state = cell->next;
	walk->otherwise = cell->otherwise;
	walk->steps = 0;
	kmesh_http_turn_to(&value, head, cell->action);
	walk->at = value.at;
	walk->end = value.end;
	walk->absent = value.absent;
	return KMESH_HTTP_MORE;
}

/*
 * Walk on for one piece.
 *
 * Returns KMESH_HTTP_MORE when nothing is decided yet, else what kmesh_http_match() returns.
 */
static __always_inline int kmesh_http_step(const struct kmesh_http_input *in,
					   const struct kmesh_http_head *head,
					   kmesh_http_graph *graph, struct kmesh_http_walk *walk,
					   struct kmesh_http_outcome *outcome)
{
	/* Bounded for the verifier as what a loop's step leaves: or it walks each step again. */
	struct kmesh_http_value value = {
		.at = walk->at, .end = walk->end, .absent = walk->absent & 1};
	__u64 state = walk->state, otherwise = walk->otherwise;
	const struct kmesh_http_cell *cell;

	KMESH_HTTP_FLAT_LOOP
	for (__u32 step = 0; step < KMESH_HTTP_PIECE; step++) {
		__u64 within = kmesh_http_below(value.at, value.end), at = value.at, symbol, right;
		const __u8 *byte;

		/* At its end a value has one more byte, its line's, which is not looked at. */
		KMESH_HTTP_MASK(at, KMESH_HTTP_HEAD_MAX - 1);
		byte = in->data + at;
		KMESH_HTTP_GOTO_IF(byte + 1, <=, in->end, there);
		return KMESH_HTTP_MALFORMED;
	there:
		symbol = kmesh_http_choose(within, *byte, value.absent);
		value.at -= within;
		/* For the verifier: as unknown as one that was read from the head. */
		KMESH_HTTP_MASK(value.at, 0xffff);
		cell = kmesh_http_cell_of(graph, state + symbol);
		KMESH_HTTP_GOTO_IF(cell, !=, 0, found);
		return KMESH_HTTP_NO_TABLE;
	found:
		right = kmesh_http_below(symbol ^ cell->byte, 1);
		state = kmesh_http_choose(right, cell->next, otherwise);
		otherwise = kmesh_http_choose(right, cell->otherwise, otherwise);
		right &= cell->action;
		if (!right)
			continue;
		KMESH_HTTP_GOTO_IF(right, !=, KMESH_HTTP_DECIDED, on);
		outcome->route = state;
		outcome->steps = walk->steps + step;
		return state == KMESH_HTTP_NO_IDEA ? KMESH_HTTP_UNDECIDED : KMESH_HTTP_OK;
	on:
		kmesh_http_turn_to(&value, head, right);
	}
	walk->at = value.at;
	walk->end = value.end;
	walk->absent = value.absent;
	walk->state = state;
	walk->otherwise = otherwise;
	walk->steps += KMESH_HTTP_PIECE;
	return walk->steps < KMESH_HTTP_STEPS ? KMESH_HTTP_MORE : KMESH_HTTP_TOO_LONG;
}

/*
 * Walk a graph with a head that kmesh_http_parse() has read from the same input.
 *
 * Returns KMESH_HTTP_OK, and in outcome->route a route's index, KMESH_HTTP_NO_ROUTE or
 * KMESH_HTTP_NO_VHOST; or the reason of a refusal.
 */
static __always_inline int kmesh_http_match(const struct kmesh_http_input *in,
					    const struct kmesh_http_head *head,
					    kmesh_http_graph *graph,
					    struct kmesh_http_outcome *outcome)
{
	struct kmesh_http_walk walk;
	int verdict = kmesh_http_enter(head, graph, &walk);

	while (verdict == KMESH_HTTP_MORE)
		verdict = kmesh_http_step(in, head, graph, &walk, outcome);
	return verdict;
}

#endif
