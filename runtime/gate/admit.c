// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether a client may send a request that others may not. Who it is stands in the kernel's tables
 * by its address, as waypoints are told it. Where a namespace has several addresses of which none
 * is better, it may be the one or the other: then it may what both may.
 */
#include "answers.h"
#include "maps.h"
#include "ruling.h"
#include "waypoint.h"
#include <arpa/inet.h>
#include <kmesh/maps.h>
#include <string.h>

#define IDENTITY 0xd0 /* the TLV's type (runtime/tables/identities.py) */
#define TLV_HEAD 3

/*
 * Who is at an address, until the next look-up; `length` 0 for nobody that is known. False: there
 * is somebody whose identity there was no room for.
 */
static bool name_of(const __be32 *address, const char **name, size_t *length)
{
	const struct kmesh_source_tlvs *found;
	struct kmesh_source_key key;

	*length = 0;
	memcpy(key.address, address, sizeof(key.address));
	found = gate_map_lookup(&source_tlvs, &key);
	if (!found)
		return true;
	*length = found->tlvs[1] << 8 | found->tlvs[2];
	*name = (const char *)found->tlvs + TLV_HEAD;
	return found->tlvs[0] == IDENTITY && *length <= sizeof(found->tlvs) - TLV_HEAD;
}

static bool refuse(const char **reason, const char *why)
{
	*reason = why;
	return false;
}

bool admit(const struct session *session, const void *ruling, size_t size, const char **reason)
{
	const __be32(*addresses)[4];
	const char *name = "";
	uint32_t count;
	bool known;

	if (!ruling_is_whole(ruling, size))
		return refuse(reason, "the rules cannot be read");
	known = space_sources(session->space, session->service, &addresses, &count);
	/* A node's own namespace has many addresses: where none says who it is, none matters. */
	if ((!known || !count) && !ruling_asks_address(ruling) && space_is_nobodys(session->space))
		return ruling_allows(ruling, NULL, name, 0);
	if (!known)
		return refuse(reason, "the client's addresses cannot be told");
	if (!count)
		return refuse(reason, "the client has no address that others know");
	for (uint32_t i = 0; i < count; i++) {
		size_t length;

		if (!name_of(addresses[i], &name, &length)) {
			if (ruling_asks_name(ruling))
				return refuse(reason,
					      "the client's identity is too long to be known here");
			length = 0;
		}
		if (!ruling_can_read(name, length))
			return refuse(reason, "the client's identity is no plain text");
		if (!ruling_allows(ruling, addresses[i], name, length))
			return false;
	}
	return true;
}
