/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one difference between the kernel and elsewhere. `data` up to `end` are the bytes at hand,
 * from the first byte of the head on: in an sk_msg program msg->data and msg->data_end after
 * bpf_msg_pull_data() of at most KMESH_HTTP_HEAD_MAX bytes.
 */
#ifndef KMESH_HTTP_INPUT_H
#define KMESH_HTTP_INPUT_H

#include <kmesh/http/types.h>

struct kmesh_http_input {
	const __u8 *data;
	const __u8 *end;
};

#ifdef __bpf__

#include <bpf/bpf_helpers.h>
#include <kmesh/compiler.h>

typedef void kmesh_http_graph; /* the inner map */

static __always_inline const struct kmesh_http_cell *kmesh_http_cell_of(kmesh_http_graph *graph,
									__u32 number)
{
	return bpf_map_lookup_elem(graph, &number);
}

#define KMESH_HTTP_MASK(value, mask) KMESH_MASK(value, mask)

/*
 * if (left op right) goto label. The verifier walks on without the jump first, and puts the jump on
 * a list of at most 8,192 (BPF_COMPLEXITY_LIMIT_JMP_SEQ). So that a long loop does not fill it,
 * what leaves the loop must not be jumped to, and clang must not have a say.
 */
#define KMESH_HTTP_GOTO_IF(left, op, right, label)                                                 \
	asm volatile goto("if %0 " #op " %1 goto %l2" : : "r"(left), "ri"(right) : : label)
#define KMESH_HTTP_OPAQUE(value) asm volatile("" : "+r"(value))
#define KMESH_HTTP_FLAT_LOOP	 _Pragma("clang loop unroll(disable)")

#else

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* The same bytes, mapped from the kernel's map or made by the tests. */
typedef struct {
	const struct kmesh_http_cell *cells;
	__u32 count;
} kmesh_http_graph;

static __always_inline const struct kmesh_http_cell *kmesh_http_cell_of(kmesh_http_graph *graph,
									__u32 number)
{
	return number < graph->count ? &graph->cells[number] : 0;
}

#define KMESH_HTTP_MASK(value, mask) ((value) &= (mask))
#define KMESH_HTTP_GOTO_IF(left, op, right, label)                                                 \
	do {                                                                                       \
		if ((left)op(right))                                                               \
			goto label;                                                                \
	} while (0)
#define KMESH_HTTP_OPAQUE(value) ((void)0)
#define KMESH_HTTP_FLAT_LOOP

#endif

/*
 * All bits when left < right (both below 2^63), else none: where a loop branched, the verifier
 * would have to walk both ways in each of its steps.
 */
static __always_inline __u64 kmesh_http_below(__u64 left, __u64 right)
{
	__u64 bits = left - right;

	/* Or clang makes it a branch again, here or where the mask is used. */
	KMESH_HTTP_OPAQUE(bits);
	bits = (__s64)bits >> 63;
	KMESH_HTTP_OPAQUE(bits);
	return bits;
}

static __always_inline __u64 kmesh_http_choose(__u64 mask, __u64 when_set, __u64 when_clear)
{
	/* Of the two one is 0. On 5.10 and 6.1 the verifier knows nothing of what comes out of `|`.
	 */
	return (when_set & mask) + (when_clear & ~mask);
}

#endif
