/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets that take what is redirected to them in place of TCP, and how to tell that they may. */
#ifndef KMESH_SOCKETS_H
#define KMESH_SOCKETS_H

#include <kmesh/flow_control.h>

/* How long after the last possible redirect to a socket none can be under way any more. */
#define KMESH_GRACE_NS 200000000ull
/* Set on a socket that is about to leave: a callback that costs nothing, where the peer can see it.
 */
#define KMESH_LEAVING BPF_SOCK_OPS_RETRANS_CB_FLAG

/* A socket by its cookie, which is never given twice, and where the kernel keeps it. */
struct kmesh_socket {
	__u64 cookie;
	__u64 sock;
};

/* By cookie. The kernel takes a socket out when it closes. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 131072);
	__type(key, __u64);
	__type(value, __u64);
} sockets SEC(".maps");

/* Whether a reader stays, never blocks, wants no more than a byte, and reads what is sent as it is.
 */
static __always_inline int kmesh_takes_redirects(__u64 reader)
{
	return !kmesh_has_callbacks(reader, KMESH_LEAVING) && kmesh_never_blocks(reader) &&
	       !kmesh_waits_for_more(reader) && !kmesh_has_layer(reader);
}

#endif
