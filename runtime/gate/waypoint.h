/* SPDX-License-Identifier: GPL-2.0-only */
/* The way to a waypoint, for what the tables cannot answer. */
#ifndef KMESH_GATE_WAYPOINT_H
#define KMESH_GATE_WAYPOINT_H

#include "gate.h"

/* The node's, by the path of its Unix socket; empty: none. False: the path is too long. */
bool waypoint_set(const char *path);
const char *waypoint_path(void);

/* What is to be done with a request that takes a waypoint; `number`: the cluster of its port's. */
void waypoint_route(struct route *route, uint64_t number, const char *head, size_t length);

/* The client's own connection there: the one that it has kept, or one that is dialled. */
struct upstream *waypoint_seek(struct exchange *exchange);
void waypoint_failed(const struct exchange *exchange);
void waypoint_reached(const struct exchange *exchange);
const char *waypoint_out_of_reach(const struct route *route);

/* Between two exchanges; NULL when there is none. */
void waypoint_keep(struct upstream *upstream);
void waypoint_drop(struct session *session);

/* A connection to the node's: its descriptor; `later`: its queue is full, connect again. */
int waypoint_connect(bool *later);
int waypoint_connect_again(int fd, bool *later);

/* introduce.c: says who is there, before all else. False: the connection does not take it. */
bool waypoint_introduce(const struct session *session, const struct upstream *upstream);
void peer_address(const union peer *peer, __be32 *address, __be16 *port);
bool socket_address(int fd, bool peer, __be32 *address, __be16 *port);

/* addresses.c: the address by which a namespace's workload is known, in the family of another. */
bool space_source(struct space *space, const __be32 *like, __be32 *address);
/* All that it may be, none of which is better; false: there may be others. */
bool space_sources(struct space *space, const __be32 *like, const __be32 (**addresses)[4],
		   uint32_t *count);
/* However many there are, none is a workload's. */
bool space_is_nobodys(struct space *space);

#endif
