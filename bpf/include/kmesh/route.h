/* SPDX-License-Identifier: GPL-2.0-only */
/* What a route does with a request. */
#ifndef KMESH_ROUTE_H
#define KMESH_ROUTE_H

#include <kmesh/balance.h>
#include <kmesh/gate_types.h>

/* One of a route's clusters, exactly by weight; 0 when none has any. */
static __always_inline __u64 kmesh_route_cluster(const struct kmesh_route *route)
{
	__u32 left = kmesh_below(route->total);

	for (int i = 0; i < KMESH_ROUTE_CLUSTERS; i++) {
		if (left < route->weights[i])
			return route->clusters[i];
		left -= route->weights[i];
	}
	return 0;
}

#endif
