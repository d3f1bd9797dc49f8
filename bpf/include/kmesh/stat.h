/* SPDX-License-Identifier: GPL-2.0-only */
/* Counting requests: what the kernel notes when it takes one. */
#ifndef KMESH_STAT_H
#define KMESH_STAT_H

#include <kmesh/compiler.h>
#include <kmesh/gate.h>
#include <kmesh/stat_types.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, KMESH_STATS);
	__type(key, __u32);
	__type(value, struct kmesh_route_stat);
} route_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KMESH_STATS);
	__type(key, __u32);
	__type(value, struct kmesh_route_taken);
} route_taken SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kmesh_gate_stat);
} gate_stat SEC(".maps");

/* By the number of the upstream that has the request. Empty while there is no access log. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KMESH_UPSTREAMS);
	__type(key, __u32);
	__type(value, struct kmesh_taken_head);
} taken_heads SEC(".maps");

#ifdef __bpf__

/* For who sees the response; before the request is on its way. */
static __always_inline void kmesh_describe_request(struct sk_msg_md *msg,
						   struct kmesh_upstream *upstream, __u32 stat)
{
	upstream->since = bpf_ktime_get_ns();
	upstream->stat = stat;
	upstream->size = msg->size;
}

static __always_inline void kmesh_count_taken(__u32 stat, __u32 size)
{
	struct kmesh_route_taken *taken = bpf_map_lookup_elem(&route_taken, &stat);

	if (!taken)
		return;
	taken->requests += 1;
	taken->sent += size;
}

/* Bucket n has what took less than 2^n us, and not less than half of that. */
static __always_inline __u32 kmesh_stat_bucket(__u64 ns)
{
	__u64 us = ns / 1000;
	__u32 bits = 0;

	for (__u32 step = 16; step; step /= 2) {
		if (us >> step) {
			us >>= step;
			bits += step;
		}
	}
	bits += us != 0;
	return bits < KMESH_STAT_BUCKETS ? bits : KMESH_STAT_BUCKETS - 1;
}

/* A request that the gate does not see the response of; all of it was there at once. */
static __always_inline void kmesh_count_served(__u32 number, __u64 since, __u32 asked, __u32 status,
					       __u32 size)
{
	static const __u16 codes[KMESH_STAT_CODES] = KMESH_STAT_CODE_LIST;
	__u32 class = status / 100, bucket;
	__u64 took = bpf_ktime_get_ns() - since;
	struct kmesh_route_stat *stat = bpf_map_lookup_elem(&route_stats, &number);

	/* The verifier knows nothing of a quotient, and clang would compare the dividend. */
	KMESH_MASK(class, 7);
	if (!stat || class >= KMESH_STAT_CLASSES)
		return;
	bucket = kmesh_stat_bucket(took);
	if (bucket >= KMESH_STAT_BUCKETS)
		return;
	__sync_fetch_and_add(&stat->requests[KMESH_BY_KERNEL * KMESH_STAT_CLASSES + class], 1);
	__sync_fetch_and_add(&stat->request_bytes[KMESH_BY_KERNEL], asked);
	__sync_fetch_and_add(&stat->response_bytes[KMESH_BY_KERNEL], size);
	__sync_fetch_and_add(&stat->head_ns, took);
	__sync_fetch_and_add(&stat->end_ns, took);
	__sync_fetch_and_add(&stat->head[bucket], 1);
	__sync_fetch_and_add(&stat->end[bucket], 1);
	for (__u32 i = 0; i < KMESH_STAT_CODES; i++)
		if (codes[i] == status)
			__sync_fetch_and_add(&stat->codes[i], 1);
}

static __always_inline void kmesh_count_response(const struct kmesh_upstream *upstream,
						 __u32 status, __u32 size)
{
	kmesh_count_served(upstream->stat, upstream->since, upstream->size, status, size);
}

static __always_inline void kmesh_keep_head(struct sk_msg_md *msg, __u32 upstream)
{
	struct kmesh_taken_head head = {};
	__u32 length = msg->size;

	if (length > KMESH_LOG_TEXT)
		length = KMESH_LOG_TEXT;
	head.length = length;
	if (!bpf_probe_read_kernel(head.text, length, msg->data))
		bpf_map_update_elem(&taken_heads, &upstream, &head, BPF_ANY);
}

#endif

#endif
