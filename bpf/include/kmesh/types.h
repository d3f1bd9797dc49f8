/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the maps hold. This is the one definition: the Python side (runtime/tables/layout.py) is
 * generated from the BTF of the compiled objects. No implicit padding: fill with `pad` fields.
 * A __be type, and an array of one, is in network order, and plain bytes in Python.
 */
#ifndef KMESH_TYPES_H
#define KMESH_TYPES_H

#include <linux/types.h>

/* Endpoints of one weight class are within a factor of two: class c holds weights [2^c, 2^(c+1)).
 */
#define KMESH_CLASSES 16
/* A slot number is class << KMESH_CLASS_SHIFT | index within the class. */
#define KMESH_CLASS_SHIFT 24

/* Addresses are IPv6; an IPv4 address is written ::ffff:a.b.c.d, so one table serves both. */
struct kmesh_frontend_key {
	__be32 address[4];
	__be16 port;
	__u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP */
	__u8 pad;
};

/* Connections go to the cluster's waypoint, which is told where they were going. */
#define KMESH_FRONTEND_WAYPOINT 1

/* What a service's address and port stand for. */
struct kmesh_frontend {
	__u64 cluster;
	__u32 flags;
	__u32 pad;
};

struct kmesh_cluster_key {
	__u64 cluster; /* a digest of service, port, protocol and family: the same after a restart
			*/
};

/*
 * How many endpoints a cluster has, by class, and what their weights add up to. It is replaced as
 * a whole, so a reader sees one state or the next.
 */
struct kmesh_cluster {
	__u32 total; /* of weights[]; 0: nobody serves, refuse */
	__u32 flags;
	__u32 counts[KMESH_CLASSES];
	__u32 weights[KMESH_CLASSES];
};

struct kmesh_slot_key {
	__u64 cluster;
	__u32 slot;
	__u32 pad;
};

struct kmesh_endpoint {
	__be32 address[4];
	__be16 port;
	__u16 flags;
	__u32 weight;
};

struct kmesh_bar_key {
	__be32 address[4];
	__be16 port;
	__u8 pad[2];
};

/* A waypoint's instance that could not be connected to, and is left alone for a while. */
struct kmesh_bar {
	__u64 until_ns; /* CLOCK_MONOTONIC */
	__u32 failures; /* in a row */
	__u32 trying;	/* a connection finds out, until then, whether it is back */
};

enum kmesh_waypoint_counter {
	KMESH_UNREACHED,    /* connections that an instance did not take */
	KMESH_DIVERTED,	    /* connections that went to another instance than a barred one */
	KMESH_UNINTRODUCED, /* connections for which there was no room in `introductions` */
	KMESH_NO_ROOM,	    /* connections refused for that, before they were made */
	KMESH_WAYPOINT_COUNTERS,
};

struct kmesh_netns_key {
	__u64 cookie;
};

struct kmesh_netns {
	__u32 flags;
};

#define KMESH_PEER_WAYPOINT   1 /* the endpoint is a waypoint, and must be told the service */
#define KMESH_PEER_INTRODUCED 2 /* it has been told */

/* A socket's service, and the endpoint that stands for it. */
struct kmesh_peer {
	__be32 service[4];
	__be32 endpoint[4];
	__be16 service_port;
	__be16 endpoint_port;
	__u32 flags;
};

/* One service that an unconnected datagram socket talks to, and the endpoint that it keeps. */
struct kmesh_flow {
	__be32 service[4];
	__be32 endpoint[4];
	__be16 service_port;
	__be16 endpoint_port;
	__u32 slot;
	__u64 cluster;
};

#define KMESH_TLV_BYTES 256

struct kmesh_source_key {
	__be32 address[4];
};

/* Who a workload is, as PROXY protocol TLVs that fill all of it: its identity, then a NOOP. */
struct kmesh_source_tlvs {
	__u8 tlvs[KMESH_TLV_BYTES];
};

/* What the loader tells the programs, in read-only data: the verifier drops what is off. */
struct kmesh_config {
	__u32 can_set_retval;
	__u32 keeps_order; /* the processor, of stores and of loads (kmesh/order.h) */
};

#endif
