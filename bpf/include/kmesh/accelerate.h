/* SPDX-License-Identifier: GPL-2.0-only */
/* What same-node acceleration remembers. */
#ifndef KMESH_ACCELERATE_H
#define KMESH_ACCELERATE_H

#include <kmesh/address.h>
#include <kmesh/managed.h>
#include <kmesh/sockets.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#define KMESH_AF_INET6 10
#define KMESH_TCP_URG  0x20

/*
 * A program cannot see MSG_OOB. The protocols that use it send one to three bytes so (rlogin, and
 * Telnet's IAC DM, also within FTP): messages that small take TCP, which knows what is urgent.
 */
#define KMESH_MAY_BE_URGENT 3

/*
 * A stream that sends this much over TCP without its reader once catching up is bulk. Even what is
 * passed costs a socket in a map nearly twice what it costs another: so it leaves, for good.
 */
#define KMESH_BULK (2u << 20)

/* Set on a listener that may block: what it accepts inherits it, and is counted. */
#define KMESH_BLOCKS BPF_SOCK_OPS_RETRANS_CB_FLAG

enum kmesh_accelerate_counter {
	KMESH_PAIRED,	     /* connections both ends of which are enrolled */
	KMESH_SHORTENED,     /* messages past TCP */
	KMESH_HELD_BACK,     /* times that a stream went over to TCP */
	KMESH_LEFT,	     /* bulk streams that became ordinary sockets */
	KMESH_CLIENT_BLOCKS, /* connections of this node left alone as their client may block */
	KMESH_SERVER_BLOCKS, /* connections, from anywhere, taken by a listener that may block */
	KMESH_COUNTERS,
};

/* One connection of this node: addresses, ports in host order, initial sequence numbers. */
struct kmesh_connection {
	__be32 client[4];
	__be32 server[4];
	__u16 client_port;
	__u16 server_port;
	__u32 client_isn;
	__u32 server_isn;
};

struct kmesh_meeting {
	struct kmesh_socket client;
	struct kmesh_socket server;
	__u64 of_gate; /* the client is a connection of the gate's */
};

/* What each enrolled socket carries; only its own programs touch it, under its lock. */
struct kmesh_end {
	struct kmesh_socket self;
	struct kmesh_socket peer;
	struct kmesh_connection connection;
	__u32 over_tcp;
	__u32 passed;	  /* bytes since it went over to TCP */
	__u64 leaving_at; /* since when the peer redirects nothing here; 0: it may */
	__u64 of_gate;	  /* the peer is a connection of the gate's */
};

struct kmesh_accelerate_settings {
	__u32 enabled;
	__u32 high_water; /* bytes that may wait for a reader before its sender is left to TCP */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kmesh_accelerate_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KMESH_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* SYNs that a managed server is answering. Forgetting one only costs the short-cut. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct kmesh_connection);
	__type(value, __u8);
} announced SEC(".maps");

/* Connections whose client has not yet taken note of its server; the same. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct kmesh_connection);
	__type(value, struct kmesh_meeting);
} meetings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kmesh_end);
} ends SEC(".maps");

static __always_inline void kmesh_tally(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		*value += 1;
}

static __always_inline const struct kmesh_accelerate_settings *kmesh_settings_in_force(void)
{
	const __u32 only = 0;
	const struct kmesh_accelerate_settings *found = bpf_map_lookup_elem(&settings, &only);

	return found && found->enabled ? found : NULL;
}

#endif
