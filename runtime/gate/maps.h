/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef KMESH_GATE_MAPS_H
#define KMESH_GATE_MAPS_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

int gate_bpf(int command, union bpf_attr *attributes);
/* The descriptor of a pinned map, by the map as the shared headers define it. */
int gate_map_fd(const void *map);
bool maps_update(const void *map, const void *key, const void *value);
/* The value, until the next is looked up in the same map. */
void *gate_map_lookup(const void *map, const void *key);
void gate_map_delete(const void *map, const void *key);
void gate_map_empty(const void *map);
/* An array's values, shared with the kernel; NULL: see errno. */
void *gate_map_share(const void *map, size_t size);

#endif
