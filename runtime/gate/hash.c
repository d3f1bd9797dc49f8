// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests that are alike go to one endpoint: what counts of them is as Envoy has it
 * (source/common/http/hash_policy.cc), the numbers are not.
 */
#include "answers.h"
#include <string.h>

#define RING_ENDPOINT 3 /* elements of an endpoint */

struct value {
	const char *data;
	size_t size;
	bool there;
};

/* FNV-1a, and the last steps of MurmurHash3, so that every bit depends on every byte. */
static uint64_t number_of(const void *data, size_t size)
{
	const uint8_t *bytes = data;
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
	return hash ^ hash >> 33;
}

static struct value value_at(const char *head, const struct kmesh_http_head *parsed, uint32_t place)
{
	place &= KMESH_HTTP_PLACES - 1;
	return (struct value){head + parsed->start[place],
			      parsed->end[place] - parsed->start[place], parsed->seen >> place & 1};
}

static struct value trimmed(struct value value)
{
	while (value.size && (*value.data == ' ' || *value.data == '\t')) {
		value.data++;
		value.size--;
	}
	while (value.size &&
	       (value.data[value.size - 1] == ' ' || value.data[value.size - 1] == '\t'))
		value.size--;
	return value;
}

/* The first cookie of that name; one that is empty is none. */
static struct value cookie_of(struct value header, const char *name)
{
	const struct value none = {};

	while (header.there && header.size) {
		const char *stop = memchr(header.data, ';', header.size), *equals;
		size_t size = stop ? (size_t)(stop - header.data) : header.size;
		struct value key = {header.data, size, true}, value;

		header.data += size + !!stop;
		header.size -= size + !!stop;
		equals = memchr(key.data, '=', key.size);
		if (!equals)
			continue;
		value = (struct value){equals + 1, key.data + key.size - equals - 1, true};
		key.size = equals - key.data;
		key = trimmed(key);
		if (key.size != strlen(name) || memcmp(key.data, name, key.size))
			continue;
		value = trimmed(value);
		if (value.size >= 2 && value.data[0] == '"' && value.data[value.size - 1] == '"') {
			value.data++;
			value.size -= 2;
		}
		return value.size ? value : none;
	}
	return none;
}

static struct value value_of(uint32_t hash, const char *name, const char *head,
			     const struct kmesh_http_head *parsed, const __be32 *source)
{
	const struct value none = {};
	struct value found = value_at(head, parsed, hash >> 8 & 0xff);

	switch (hash & KMESH_HASH_KIND) {
	case KMESH_HASH_VALUE:
		return found;
	case KMESH_HASH_COOKIE:
		return cookie_of(found, name);
	case KMESH_HASH_SOURCE:
		return (struct value){(const char *)source, 16, true};
	default:
		return none;
	}
}

/* False: nothing of it counts. */
bool hash_request(const struct kmesh_route *route, const char *texts, size_t texts_size,
		  const char *head, const struct kmesh_http_head *parsed, const __be32 *source,
		  uint64_t *hash)
{
	bool any = false;

	*hash = 0;
	for (int i = 0; i < KMESH_ROUTE_HASHES && route->hash[i]; i++) {
		const char *name =
			route->hash_name[i] < texts_size ? texts + route->hash_name[i] : "";
		struct value value = value_of(route->hash[i], name, head, parsed, source);

		if (value.there) {
			*hash = (*hash << 1 | *hash >> 63) ^ number_of(value.data, value.size);
			any = true;
		}
		if (any && route->hash[i] & KMESH_HASH_TERMINAL)
			break;
	}
	return any;
}

/* `ring` is as gate_types.h has it, of `size` bytes. */
bool hash_choose(const uint64_t *ring, size_t size, uint64_t hash, struct kmesh_endpoint *endpoint)
{
	uint64_t count = size / sizeof(*ring), buckets, at;

	buckets = count ? ring[0] : 0;
	if (!buckets || buckets & (buckets - 1) || buckets >= count)
		return false;
	at = 1 + buckets + ring[1 + (hash & (buckets - 1))] * RING_ENDPOINT;
	if (at + RING_ENDPOINT > count)
		return false;
	memcpy(endpoint, &ring[at], sizeof(*endpoint));
	return true;
}
