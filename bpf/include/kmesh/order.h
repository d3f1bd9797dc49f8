/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An order between what one processor writes (or reads) before and after, as another sees it. On
 * x86 it is that of the program: stores stay in order, and so do loads, so that it is enough to
 * keep the compiler from changing it. On arm64 nothing is in order by itself.
 *
 * BPF's own atomics are no way to have it everywhere: those that fetch order everything, and are
 * known since 5.12 (5ca419f2864a); verifiers before refuse a program for having one, be it never
 * run. An add that does not fetch loads everywhere, and on arm64 it orders nothing (STADD). But a
 * lock does: what comes before is done when it is left, what comes after has not begun when it is
 * taken, and it is not taken again before it is left. Two turns order all, writes and reads.
 */
#ifndef KMESH_ORDER_H
#define KMESH_ORDER_H

#include <kmesh/drift.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define KMESH_FENCES 256 /* processors beyond share theirs, which costs time alone */

struct kmesh_fence {
	struct bpf_spin_lock lock;
	__u32 pad[15]; /* a cache line each */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KMESH_FENCES);
	__type(key, __u32);
	__type(value, struct kmesh_fence);
} fences SEC(".maps");

static __always_inline void kmesh_order(void)
{
	struct kmesh_fence *fence;
	__u32 own;

	asm volatile("" ::: "memory");
	if (kmesh_config.keeps_order)
		return; /* known when it is loaded: what follows is not there */
	own = bpf_get_smp_processor_id() % KMESH_FENCES;
	fence = bpf_map_lookup_elem(&fences, &own);
	if (!fence)
		return;
	bpf_spin_lock(&fence->lock);
	bpf_spin_unlock(&fence->lock);
	bpf_spin_lock(&fence->lock);
	bpf_spin_unlock(&fence->lock);
	asm volatile("" ::: "memory");
}

#endif
