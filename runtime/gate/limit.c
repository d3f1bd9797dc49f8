// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is done to a share of a route's requests, or to too many of them (Envoy's filters
 * envoy.filters.http.fault and local_ratelimit).
 *
 * A bucket is the time since which its tokens have come: a token taken moves it on by what one
 * takes to come, and it is never longer ago than what fills the bucket (Envoy's
 * source/common/common/token_bucket_impl.cc, AtomicTokenBucketImpl). The gate alone takes tokens;
 * buckets are in a map, so that they outlive it.
 */
#include "answers.h"
#include "gate.h"
#include "maps.h"
#include <kmesh/gate.h>

uint32_t gate_random(void);

static bool falls_on(uint32_t share, uint32_t of)
{
	return share && (share >= of || (uint64_t)gate_random() * of >> 32 < share);
}

bool limit_exceeded(const struct kmesh_route *route)
{
	const struct kmesh_bucket_key key = {.number = route->bucket};
	unsigned __int128 interval = (unsigned __int128)route->limit_ms * 1000000;
	unsigned __int128 filling = route->limit_most * interval / (route->limit_tokens ?: 1);
	int64_t now = clock_ns(), full, each = interval / (route->limit_tokens ?: 1);
	struct kmesh_bucket *found, bucket;

	if (!route->bucket || !falls_on(route->limit_share, route->limit_of))
		return false;
	full = now - (int64_t)(filling < INT64_MAX / 2 ? filling : INT64_MAX / 2);
	found = gate_map_lookup(&http_buckets, &key);
	bucket.since = found && found->since > full ? found->since : full;
	if (bucket.since > now || now - bucket.since < each)
		return true;
	bucket.since += each;
	maps_update(&http_buckets, &key, &bucket);
	return false;
}

bool limit_aborts(const struct kmesh_route *route)
{
	return falls_on(route->abort_share, route->abort_of);
}
