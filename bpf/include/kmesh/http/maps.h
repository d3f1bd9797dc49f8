/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps of grammars and graphs. What has a number never changes, as the number is a digest of
 * it: a new table is written whole, then whoever points at the old one is turned over, then the old
 * one goes; who still reads it keeps it (RCU).
 */
#ifndef KMESH_HTTP_MAPS_H
#define KMESH_HTTP_MAPS_H

#include <kmesh/http/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct kmesh_http_grammar_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct kmesh_http_grammar));
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__array(values, struct kmesh_http_grammar_map);
} http_grammars SEC(".maps");

/* As many cells as the graph needs, the step before the first value in cell 0: BPF_F_INNER_MAP,
 * since 5.10. */
struct kmesh_http_graph_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct kmesh_http_cell));
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__array(values, struct kmesh_http_graph_map);
} http_graphs SEC(".maps");

static __always_inline const struct kmesh_http_grammar *kmesh_http_grammar_of(__u64 number)
{
	void *inner = bpf_map_lookup_elem(&http_grammars, &number);
	const __u32 only = 0;

	return inner ? bpf_map_lookup_elem(inner, &only) : 0;
}

/* A graph as kmesh_http_match() takes it; NULL: there is none. */
static __always_inline void *kmesh_http_graph_of(__u64 number)
{
	return bpf_map_lookup_elem(&http_graphs, &number);
}

#endif
