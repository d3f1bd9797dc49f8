/* SPDX-License-Identifier: GPL-2.0-only */
/* What is told of a connection, and where that waits to be read. */
#ifndef KMESH_TELEMETRY_H
#define KMESH_TELEMETRY_H

#include <kmesh/address.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

/* kmesh_tcp_flow.direction, as seen from the socket that tells */
#define KMESH_OUTBOUND 1
#define KMESH_INBOUND  2

/* kmesh_tcp_event.kind */
#define KMESH_OPENED 1
#define KMESH_CLOSED 2
#define KMESH_FAILED 3 /* a connect() that came to nothing */

/* What connections are summed up by. */
struct kmesh_tcp_flow {
	__be32 source[4];
	__be32 destination[4];
	__be32 service[4]; /* that the client asked for; 0 when it asked for no service */
	__be16 destination_port;
	__be16 service_port;
	__u8 direction;
	__u8 pad[3];
};

/* One connection, as one of its ends saw it. */
struct kmesh_tcp_event {
	struct kmesh_tcp_flow flow;
	__be16 source_port;
	__u8 kind;
	__u8 state; /* BPF_TCP_ESTABLISHED and so on */
	__u32 smoothed_rtt_us;
	__u32 min_rtt_us; /* 0 when none was measured */
	__u32 retransmissions;
	__u32 lost;
	__u32 pad;
	__u64 started_ns; /* CLOCK_MONOTONIC */
	__u64 now_ns;
	__u64 sent; /* bytes of the application's, once however often they were sent */
	__u64 received;
};

/* Puts the structs into the object's BTF, from which the Python side is generated. */
const struct kmesh_tcp_event *kmesh_tcp_event_layout __attribute__((unused));

struct kmesh_following {
	__u64 started_ns;
	__u8 direction;
	__u8 established;
	__u8 pad[6];
};

/* What the data path remembers of a socket (kmesh/maps.h): the loader puts its map here. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kmesh_peer);
} peers SEC(".maps");

/* Who is managed by network namespace (kmesh/maps.h): the loader puts its map here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct kmesh_netns_key);
	__type(value, struct kmesh_netns);
} managed_netns SEC(".maps");

/* The connections that are followed. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kmesh_following);
} following SEC(".maps");

/* BPF_MAP_TYPE_RINGBUF: since 5.8, 457f44363a88. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 2 * 1024 * 1024);
} events SEC(".maps");

/* Events that there was no room for, and connections that there was no memory to follow. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

#endif
