/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which route does a request take? In an sk_msg program, with `set` a struct kmesh_http_set and
 * `head` in the client's socket storage:
 *
 *	struct kmesh_http_input in = { .data = msg->data, .end = msg->data_end };
 *	const struct kmesh_http_grammar *grammar = kmesh_http_grammar_of(set->grammar);
 *	void *graph = kmesh_http_graph_of(set->graph);
 *	struct kmesh_http_outcome outcome;
 *
 *	verdict = kmesh_http_parse(&in, grammar, head);
 *	if (verdict == KMESH_HTTP_OK)
 *		verdict = kmesh_http_match(&in, head, graph, &outcome);
 *
 * Each of the two is a loop of thousands of steps to the verifier: where they do not fit into one
 * program, they go into two, with a tail call between (bpf/enhanced/ has an example).
 */
#ifndef KMESH_HTTP_MATCH_H
#define KMESH_HTTP_MATCH_H

#include <kmesh/http/input.h>
#include <kmesh/http/parse.h>

/*
 * Bytes that are compared at most, and ends of values; no value is compared twice. In the kernel
 * the verifier sets the bound: what has more is refused there, and routed by the gate.
 */
#ifdef __bpf__
#define KMESH_HTTP_STEPS 4096
#else
#define KMESH_HTTP_STEPS (KMESH_HTTP_HEAD_MAX + 2 * KMESH_HTTP_PLACES)
#endif

/* The value that is compared: where the next byte is, where none is left, and whether there is one.
 */
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
	const struct kmesh_http_cell *cell = kmesh_http_cell_of(graph, 0);
	struct kmesh_http_value value;
	__u64 state, otherwise;

	if (!cell)
		return KMESH_HTTP_NO_TABLE;
	state = cell->next;
	otherwise = cell->otherwise;
	kmesh_http_turn_to(&value, head, cell->action);
	KMESH_HTTP_FLAT_LOOP
	for (__u32 step = 0; step < KMESH_HTTP_STEPS; step++) {
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
		outcome->steps = step;
		return state == KMESH_HTTP_NO_IDEA ? KMESH_HTTP_UNDECIDED : KMESH_HTTP_OK;
	on:
		kmesh_http_turn_to(&value, head, right);
	}
	return KMESH_HTTP_TOO_LONG;
}

#endif
