/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Authorization at L4: the policies of one destination as a packet classifier.
 *
 * The policies that apply to a destination are a "set", compiled by
 * runtime/tables/policy_compile.py. Each is an OR of terms, each term an AND of what it asks of the
 * source's identity, the source's address and the port (what it asks of the destination's address
 * is decided when compiling). A term is one bit. For each of the three there is a row: the terms
 * that this value satisfies. The AND of three rows is the terms that match, however many policies
 * there are.
 *
 * Rows of a set are never changed, and a set's number stands for its content. A policy that changes
 * makes a new set: its rows are written, then the destination is turned over in one update, then
 * the old rows go. Who still finds the same set when it is done has read nothing that was going.
 */
#ifndef KMESH_POLICY_H
#define KMESH_POLICY_H

#include <kmesh/address.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define KMESH_ROW_WORDS 16 /* of 64 terms */
#define KMESH_ROWS	16 /* in a set, of one kind each: 16,384 terms */
#define KMESH_RETURNS	4  /* to the start, when a policy changed meanwhile */

/* kmesh_guard.rows, from the lowest bits on; what no row is left for is KMESH_END */
#define KMESH_END     0
#define KMESH_DENY    1
#define KMESH_ALLOW   2
#define KMESH_DRY_RUN 3 /* counted, and decides nothing */

/* kmesh_guard.flags */
#define KMESH_HAS_ALLOW	  1 /* what no allow policy matches is refused */
#define KMESH_BY_IDENTITY 2 /* some term asks for it; else the rows are not there */
#define KMESH_BY_SOURCE	  4
#define KMESH_CLOSED	  8 /* a deny policy cannot be enforced: refuse everyone */

/* kmesh_identity.flags */
#define KMESH_EXEMPT 1 /* the node itself: its health checks are never refused */

/* kmesh_row_key.kind */
#define KMESH_ROW_IDENTITY     1
#define KMESH_ROW_ANY_IDENTITY 2 /* in the mesh, and none with a row of its own */
#define KMESH_ROW_NO_IDENTITY  3 /* outside of the mesh */
#define KMESH_ROW_PORT	       4
#define KMESH_ROW_ANY_PORT     5

/* kmesh_hit_key.word beside the words of the set, numbered through its rows; the bit is 0 */
#define KMESH_NO_TERM_ALLOWS 0xffffffff
#define KMESH_ALL_REFUSED    0xfffffffe

struct kmesh_address_key {
	__be32 address[4];
};

/* What guards a destination: a set, and the kind of each of its rows, two bits a row. */
struct kmesh_guard {
	__u64 set;
	__u32 rows;
	__u32 flags;
};

struct kmesh_identity {
	__u64 identity; /* a digest of the principal; 0: none */
	__u32 flags;
	__u32 pad;
};

struct kmesh_row_key {
	__u64 set;
	__u64 value;
	__u32 number;
	__u32 kind;
};

struct kmesh_row {
	__u64 words[KMESH_ROW_WORDS];
};

/* The longest prefix decides; what is before the address always matches whole. */
struct kmesh_block_key {
	__u32 prefix_length;
	__u32 number;
	__u64 set;
	__be32 address[4];
};

#define KMESH_BLOCK_FIXED_BITS 96 /* number and set */

struct kmesh_hit_key {
	__u64 set;
	__u64 bit; /* of the word: 1 << n for its term n */
	__u32 word;
	__u32 pad;
};

/* `policy`, from 1 on, tells terms of one policy from those of the next. */
struct kmesh_hit {
	__u64 times;
	__u32 policy;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct kmesh_address_key);
	__type(value, struct kmesh_guard);
} guards SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct kmesh_address_key);
	__type(value, struct kmesh_identity);
} identities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct kmesh_row_key);
	__type(value, struct kmesh_row);
} policy_rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct kmesh_block_key);
	__type(value, struct kmesh_row);
} policy_blocks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct kmesh_hit_key);
	__type(value, struct kmesh_hit);
} policy_hits SEC(".maps");

#endif
