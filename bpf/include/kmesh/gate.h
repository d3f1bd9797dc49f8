/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps that the programs of the enhanced path share with the gate. */
#ifndef KMESH_GATE_H
#define KMESH_GATE_H

#include <kmesh/gate_types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Room for every element of `frontends`, and as many that are listeners' own. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct kmesh_frontend_key);
	__type(value, struct kmesh_http_port);
} http_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1048576);
	__type(key, struct kmesh_route_key);
	__type(value, struct kmesh_route);
} http_routes SEC(".maps");

struct kmesh_http_ring_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__array(values, struct kmesh_http_ring_map);
} http_rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct kmesh_http_cluster_key);
	__type(value, struct kmesh_http_cluster);
} http_clusters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct kmesh_http_member_key);
	__type(value, struct kmesh_http_member);
} http_members SEC(".maps");

/* The texts of a table's routes, end to end, by the table's number: for the gate. */
struct kmesh_http_text_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__array(values, struct kmesh_http_text_map);
} http_texts SEC(".maps");

struct kmesh_http_answer_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct kmesh_answer));
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__array(values, struct kmesh_http_answer_map);
} http_answers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kmesh_clock);
} http_clock SEC(".maps");

/* Whether the kernel may answer by itself (the loader writes): then clients take redirects. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} answers_here SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct kmesh_bucket_key);
	__type(value, struct kmesh_bucket);
} http_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct kmesh_gate_key);
	__type(value, struct kmesh_gate);
} gates SEC(".maps");

/* Connections that the gate has not accepted yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KMESH_SLOTS);
	__type(key, struct kmesh_session_key);
	__type(value, struct kmesh_session);
} gate_sessions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, KMESH_SLOTS);
	__type(key, __u32);
	__type(value, struct kmesh_slot);
} gate_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, KMESH_SLOTS);
	__type(value, __u32);
} free_slots SEC(".maps");

/* Where the kernel keeps a connection of the gate's, by its cookie, until the gate has read it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KMESH_UPSTREAMS);
	__type(key, __u64);
	__type(value, __u64);
} upstream_socks SEC(".maps");

/* Which of gate_upstreams a connection is, by its cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KMESH_UPSTREAMS);
	__type(key, __u64);
	__type(value, __u32);
} upstream_ids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, KMESH_UPSTREAMS);
	__type(key, __u32);
	__type(value, struct kmesh_upstream);
} gate_upstreams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, KMESH_POOLS);
	__type(key, __u32);
	__type(value, struct kmesh_pool);
} pools SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KMESH_POOLS);
	__type(key, struct kmesh_pool_key);
	__type(value, struct kmesh_pool_number);
} pool_numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KMESH_UPSTREAMS);
	__type(key, struct kmesh_idle_key);
	__type(value, struct kmesh_idle);
} idle SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kmesh_gate_settings);
} gate_settings SEC(".maps");

#endif
