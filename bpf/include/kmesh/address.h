/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses as four words, IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2). */
#ifndef KMESH_ADDRESS_H
#define KMESH_ADDRESS_H

#include <kmesh/compiler.h>
#include <kmesh/types.h>
#include <bpf/bpf_endian.h>

#define KMESH_MAPPED bpf_htonl(0xffff)

static __always_inline void kmesh_map_ip4(__be32 *to, __be32 ip4)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = KMESH_MAPPED;
	to[3] = ip4;
}

static __always_inline void kmesh_copy_address(__be32 *to, const __be32 *from)
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

static __always_inline int kmesh_same_address(const __be32 *one, const __be32 *other)
{
	return one[0] == other[0] && one[1] == other[1] && one[2] == other[2] && one[3] == other[3];
}

static __always_inline int kmesh_is_mapped(const __be32 *address)
{
	return address[0] == 0 && address[1] == 0 && address[2] == KMESH_MAPPED;
}

#endif
