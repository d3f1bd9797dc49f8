/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stands before libbpf's header of this name when the gate is compiled: the shared headers then
 * describe maps by the same lines, and their helpers reach the pinned maps by system calls.
 */
#ifndef KMESH_NATIVE_BPF_HELPERS_H
#define KMESH_NATIVE_BPF_HELPERS_H

#include <linux/types.h>

#define SEC(name)	     __attribute__((weak)) /* one for all files that name it */
#define __uint(name, number) int(*name)[number]
#define __type(name, kind)   typeof(kind) *name
#define __array(name, kind)  typeof(kind) *name[]
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* The value is copied into the map's own buffer, which the next look-up in it overwrites. */
void *gate_map_lookup(const void *map, const void *key);
__u32 gate_random(void);

#define bpf_map_lookup_elem(map, key) gate_map_lookup(map, key)
#define bpf_get_prandom_u32	      gate_random

#endif
