/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The service tables. Hashes allocate element by element (BPF_F_NO_PREALLOC): the limits below
 * cost eight bytes a bucket and no more until they are used.
 */
#ifndef KMESH_MAPS_H
#define KMESH_MAPS_H

#include <kmesh/managed.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct kmesh_frontend_key);
	__type(value, struct kmesh_frontend);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct kmesh_cluster_key);
	__type(value, struct kmesh_cluster);
} clusters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1048576);
	__type(key, struct kmesh_slot_key);
	__type(value, struct kmesh_endpoint);
} slots SEC(".maps");

/* Sockets that are connected to a waypoint and have not been introduced yet. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} introductions SEC(".maps");

/* Instances of waypoints that could not be connected to; the longest unused is forgotten. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct kmesh_bar_key);
	__type(value, struct kmesh_bar);
} barred SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KMESH_WAYPOINT_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} waypoint_counters SEC(".maps");

/* When there was no room in `introductions` the last time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} introductions_full SEC(".maps");

/* Who the workloads of this node are, by address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct kmesh_source_key);
	__type(value, struct kmesh_source_tlvs);
} source_tlvs SEC(".maps");

/*
 * The services that an unconnected datagram socket talks to; with more than these the oldest is
 * forgotten: its endpoint is chosen anew, and a late answer shows the endpoint's own address.
 */
#define KMESH_FLOWS 8

struct kmesh_flows {
	struct bpf_spin_lock lock;
	__u32 next;
	struct kmesh_flow flows[KMESH_FLOWS];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kmesh_flows);
} udp_flows SEC(".maps");

#endif
