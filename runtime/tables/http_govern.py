# SPDX-License-Identifier: Apache-2.0
"""What the gate counts or watches of a cluster, as rows of maps: then it alone chooses the endpoints.

The kernel bounds nothing and reads no responses. So a cluster with circuit breakers, outlier detection, several
priorities, weighted localities or more than two choices has no element in `clusters`, and what the kernel cannot
choose it passes (runtime/gate/govern.h).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runtime.model.http import Balancer, CircuitBreakers, Cluster, Endpoints, HttpEndpoint
from runtime.model.http import OutlierDetection as Outlier
from runtime.tables.enhanced_layout import HttpCluster, HttpMember
from runtime.tables.http_digest import digest
from runtime.tables.http_ports import mapped

SPLIT, ALWAYS_ONE, LOCALITIES, IN_TURN, LEAST = 1, 2, 4, 8, 16  # KMESH_CLUSTER_...
HEALTHY = 1  # KMESH_MEMBER_HEALTHY
NO_BOUND = 2**32 - 1
_CHOICES, _MOST_CHOICES = 2, 16
_NEVER = Outlier(consecutive_5xx=0, consecutive_gateway_failures=0, consecutive_local_failures=0)


@dataclass(frozen=True, slots=True)
class Governed:
    """A cluster's row, whose ring is not known yet, and its endpoints in order."""

    row: HttpCluster
    members: tuple[bytes, ...]


def is_bounded(breakers: CircuitBreakers) -> bool:
    """Whether a circuit breaker may open; retries have none, as nothing is retried."""
    bounds = (breakers.max_connections, breakers.max_pending_requests, breakers.max_requests)
    return any(bound is not None for bound in bounds)


def has_priorities(endpoints: Endpoints) -> bool:
    return any(one.priority for one in endpoints.endpoints)


def has_localities(cluster: Cluster, endpoints: Endpoints) -> bool:
    """Whether localities share requests by weights of their own."""
    places = {one.locality for one in endpoints.endpoints}
    return cluster.locality_weighted and len(places) > 1


def _needs_gate(cluster: Cluster, endpoints: Endpoints) -> bool:
    return (
        is_bounded(cluster.breakers)
        or cluster.outlier is not None
        or cluster.max_requests_per_connection is not None
        or has_priorities(endpoints)
        or has_localities(cluster, endpoints)
        # The kernel compares two.
        or (cluster.balancer is Balancer.LEAST_REQUEST and cluster.choices > _CHOICES)
        # With too few healthy ones the others are used too.
        or (cluster.panic_percent > 0 and not all(one.healthy for one in endpoints.endpoints))
    )


def govern(cluster: Cluster, endpoints: Endpoints) -> Governed | None:
    """A cluster's row and endpoints for the gate; None where the kernel can do all of it."""
    if not _needs_gate(cluster, endpoints):
        return None
    members = tuple(_members(endpoints.endpoints))
    outlier = cluster.outlier or _NEVER
    breakers = cluster.breakers
    return Governed(
        HttpCluster(
            ring=0,
            members=digest(b"members", *members),
            member_count=len(members),
            flags=_flags(cluster, outlier),
            max_connections=_bound(breakers.max_connections),
            max_pending=_bound(breakers.max_pending_requests),
            max_requests=_bound(breakers.max_requests),
            connection_requests=_number(cluster.max_requests_per_connection or 0),
            consecutive_5xx=_number(outlier.consecutive_5xx),
            consecutive_gateway=_number(outlier.consecutive_gateway_failures),
            consecutive_local=_number(outlier.consecutive_local_failures),
            interval_ms=_number(outlier.interval_ms),
            base_ms=_number(outlier.base_ejection_ms),
            max_ms=_number(outlier.max_ejection_ms),
            max_percent=outlier.max_ejection_percent,
            panic_percent=cluster.panic_percent,
            overprovisioning=_number(endpoints.overprovisioning_percent),
            choices=min(cluster.choices, _MOST_CHOICES),
            connect_ms=_number(cluster.connect_timeout_ms),
        ),
        members,
    )


def _number(value: int) -> int:
    return min(value, NO_BOUND)


def _bound(value: int | None) -> int:
    return NO_BOUND if value is None else _number(value)


def _flags(cluster: Cluster, outlier: Outlier) -> int:
    given = {
        SPLIT: outlier.split_local_failures,
        ALWAYS_ONE: outlier.always_one,
        LOCALITIES: cluster.locality_weighted,
        IN_TURN: cluster.balancer is Balancer.ROUND_ROBIN,
        LEAST: cluster.balancer is Balancer.LEAST_REQUEST,
    }
    return sum(flag for flag, is_set in given.items() if is_set)


def _members(endpoints: Iterable[HttpEndpoint]) -> Iterable[bytes]:
    """Each address and port once, as of its first priority; in an order that is not the source's."""
    chosen: dict[tuple[bytes, int], HttpEndpoint] = {}
    for one in sorted(endpoints, key=lambda one: one.priority):
        chosen.setdefault((mapped(one.address), one.port), one)
    places = sorted({one.locality for one in chosen.values()}, key=repr)
    number = {place: index for index, place in enumerate(places)}
    for (address, port), one in sorted(chosen.items(), key=lambda item: item[0]):
        yield HttpMember(
            address=address,
            port=port.to_bytes(2, "big"),
            flags=HEALTHY if one.healthy else 0,
            weight=one.weight,
            priority=one.priority,
            locality=number[one.locality],
            locality_weight=one.locality_weight,
        ).pack()
