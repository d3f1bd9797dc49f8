/* SPDX-License-Identifier: GPL-2.0-only */
/* Who is managed, and what their sockets were told. */
#ifndef KMESH_MANAGED_H
#define KMESH_MANAGED_H

#include <kmesh/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Network namespaces whose processes are managed, where cgroups cannot tell pods apart. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct kmesh_netns_key);
	__type(value, struct kmesh_netns);
} managed_netns SEC(".maps");

/* What a connected socket was told it is connected to; gone with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kmesh_peer);
} peers SEC(".maps");

#endif
