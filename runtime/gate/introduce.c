// SPDX-License-Identifier: GPL-2.0-only
/*
 * PROXY protocol v2: where a connection comes from, where it was going and who it is; as a
 * connection of the compat path introduces itself (bpf/compat/waypoint.bpf.c).
 * https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2
 */
#include "waypoint.h"
#include <kmesh/maps.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define PROXY_COMMAND 0x21 /* version 2, PROXY */
#define PROXY_TCP4    0x11
#define PROXY_TCP6    0x21

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

struct introduction {
	char bytes[16 + 2 * 16 + 2 * 2 + KMESH_TLV_BYTES];
	size_t length;
};

static bool is_ip4(const __be32 *address)
{
	return !address[0] && !address[1] && address[2] == htonl(0xffff);
}

static bool is_loopback(const __be32 *address)
{
	if (is_ip4(address))
		return ntohl(address[3]) >> 24 == IN_LOOPBACKNET;
	return !address[0] && !address[1] && !address[2] && address[3] == htonl(1);
}

void peer_address(const union peer *peer, __be32 *address, __be16 *port)
{
	if (peer->any.sa_family == AF_INET6) {
		memcpy(address, &peer->ip6.sin6_addr, sizeof(peer->ip6.sin6_addr));
		*port = peer->ip6.sin6_port;
		return;
	}
	address[0] = address[1] = 0;
	address[2] = htonl(0xffff);
	address[3] = peer->ip4.sin_addr.s_addr;
	*port = peer->ip4.sin_port;
}

/* False: it has none of TCP's. */
bool socket_address(int fd, bool peer, __be32 *address, __be16 *port)
{
	union peer found;
	socklen_t size = sizeof(found);

	if (peer ? getpeername(fd, &found.any, &size) : getsockname(fd, &found.any, &size))
		return false;
	if (found.any.sa_family != AF_INET && found.any.sa_family != AF_INET6)
		return false;
	peer_address(&found, address, port);
	return true;
}

/* Clients reach the gate over loopback, which says nothing about who they are to others. */
static void find_source(const struct session *session, const struct upstream *upstream,
			__be32 *address, __be16 *port)
{
	__be16 unused;

	socket_address(session->watch.fd, true, address, port);
	if (!is_loopback(address))
		return;
	if (socket_address(upstream->watch.fd, false, address, &unused) && !is_loopback(address))
		return;
	if (!space_source(session->space, session->service, address))
		socket_address(session->watch.fd, true, address, port);
}

static void add(struct introduction *text, const void *data, size_t length)
{
	memcpy(text->bytes + text->length, data, length);
	text->length += length;
}

static void compose(struct introduction *text, const struct session *session, const __be32 *source,
		    __be16 source_port)
{
	bool ip4 = is_ip4(source) && is_ip4(session->service);
	const char version[2] = {PROXY_COMMAND, ip4 ? PROXY_TCP4 : PROXY_TCP6};
	const struct kmesh_source_tlvs *identity;
	struct kmesh_source_key key;
	size_t skip = ip4 ? 3 : 0, size = ip4 ? 4 : 16;
	__be16 rest;

	memcpy(key.address, source, sizeof(key.address));
	identity = gate_map_lookup(&source_tlvs, &key);
	rest = htons(2 * size + 4 + (identity ? sizeof(*identity) : 0));
	add(text, signature, sizeof(signature));
	add(text, version, sizeof(version));
	add(text, &rest, sizeof(rest));
	add(text, source + skip, size);
	add(text, session->service + skip, size);
	add(text, &source_port, sizeof(source_port));
	add(text, &session->service_port, sizeof(session->service_port));
	if (identity)
		add(text, identity, sizeof(*identity));
}

/* A fresh connection has room for it. */
bool waypoint_introduce(const struct session *session, const struct upstream *upstream)
{
	struct introduction text = {};
	__be32 source[4] = {};
	__be16 port = 0;

	find_source(session, upstream, source, &port);
	compose(&text, session, source, port);
	return send(upstream->watch.fd, text.bytes, text.length, MSG_NOSIGNAL | MSG_MORE) ==
	       (ssize_t)text.length;
}
