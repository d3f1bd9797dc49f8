/* SPDX-License-Identifier: GPL-2.0-only */
/* Endpoints of this node that take requests into their receive queue, past TCP. */
#ifndef KMESH_SERVERS_H
#define KMESH_SERVERS_H

#include <kmesh/gate.h>
#include <kmesh/sockets.h>

/*
 * The endpoint's end of a connection of the gate's, by the cookie of the gate's end. Forgetting one
 * only costs the short-cut.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct kmesh_socket);
} servers SEC(".maps");

/*
 * The cookie of the endpoint's socket if a request can be redirected to it now, else 0. It has read
 * all that came to it by either way: so nothing can overtake, and a request is all that waits.
 */
static __always_inline __u64 kmesh_open_server(const struct kmesh_upstream *upstream)
{
	__u64 cookie = upstream->cookie;
	struct kmesh_socket *found = bpf_map_lookup_elem(&servers, &cookie), server;
	struct sock *sk;

	if (!found)
		return 0;
	server = *found;
	sk = (void *)(long)server.sock;
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != BPF_TCP_ESTABLISHED ||
	    !kmesh_takes_redirects(server.sock) || kmesh_waiting(server.sock) ||
	    !kmesh_tcp_is_empty(server.sock, upstream->sock))
		return 0;
	return server.cookie;
}

#endif
