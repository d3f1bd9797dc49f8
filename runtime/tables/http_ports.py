# SPDX-License-Identifier: Apache-2.0
"""What the routes of one port do, as rows of maps, and the endpoints that they lead to.

A table is immutable: its number is a digest of its rows. A port that changes gets another table,
and turns over to it in one update (runtime/kernel/http_ports.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from runtime.model.http import DirectResponse, Forward, Route, RouteTable
from runtime.model.mesh import IPAddress
from runtime.tables.digest import digest
from runtime.tables.enhanced_layout import Cluster, Endpoint, SlotKey
from runtime.tables.enhanced_layout import Route as Row
from runtime.tables.slots import CLASSES, class_of

FORWARD, ANSWER, WAYPOINT = 1, 2, 3  # KMESH_ROUTE_FORWARD and so on
MOST_CLUSTERS = 16
HTTP_CLUSTER = 1 << 63  # in the number of each cluster of routes, and of no service's
MOST_WEIGHT = (1 << CLASSES) - 1
_CLASS_SHIFT = 24


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint of a cluster; `weight` from 1 on, and at most `MOST_WEIGHT`."""

    address: IPAddress | str
    port: int
    weight: int = 1


def cluster_number(name: str) -> int:
    """By which a cluster is found in the maps: the same after a restart, and never a service's."""
    return digest(b"http cluster", name.encode()) | HTTP_CLUSTER


def mapped(address: IPAddress | str) -> bytes:
    """An address as the maps have it: IPv4 mapped into IPv6."""
    given = ip_address(address) if isinstance(address, str) else address
    if isinstance(given, IPv4Address):
        return bytes(10) + b"\xff\xff" + given.packed
    return given.packed


def why_waypoint(route: Route) -> str | None:
    """Why a route is neither the kernel's nor the gate's; None when it is."""
    if route.beyond:
        return "; ".join(route.beyond)
    if route.abort or route.rate_limit or route.rbac:
        return "a fault, a rate limit or an authorization of the route's own"
    if isinstance(route.action, Forward):
        return _why_not_forwarded(route.action)
    if isinstance(route.action, DirectResponse) and not route.action.body:
        return None
    return "redirect or direct_response with a body"


def _why_not_forwarded(action: Forward) -> str | None:
    if action.hash_policies:
        return "hash_policy"
    if sum(one.weight for one in action.clusters) == 0:
        return "weighted_clusters: no weight"
    if len(action.clusters) > MOST_CLUSTERS:
        return f"weighted_clusters: more than {MOST_CLUSTERS}"
    return None


def _row(route: Route, rough: str | None) -> tuple[Row, str | None]:
    why = rough or why_waypoint(route)
    none = (0,) * MOST_CLUSTERS
    if why:
        return Row(WAYPOINT, 0, 0, 0, none, none), why
    if isinstance(route.action, DirectResponse):
        return Row(ANSWER, route.action.status, 0, 0, none, none), None
    assert isinstance(route.action, Forward)
    chosen = route.action.clusters
    room = (0,) * (MOST_CLUSTERS - len(chosen))
    return Row(
        FORWARD,
        0,
        sum(one.weight for one in chosen),
        0,
        (*(cluster_number(one.name) for one in chosen), *room),
        (*(one.weight for one in chosen), *room),
    ), None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRows:
    """A table: its number, the packed row of each route by index, and why some need a waypoint."""

    number: int
    rows: tuple[bytes, ...]
    waypoint: Mapping[int, str]


def route_rows(table: RouteTable, rough: Mapping[int, str], stats: Sequence[int] = ()) -> RouteRows:
    """The rows of a route table.

    Args:
        table: the routes, numbered through all virtual hosts.
        rough: routes that the matcher cannot tell exactly, and why (`CompiledRoutes.rough`).
        stats: where the requests of each route are counted; all together without it.
    """
    rows, waypoint = [], {}
    routes = (route for host in table.virtual_hosts for route in host.routes)
    for index, route in enumerate(routes):
        row, why = _row(route, "; ".join(table.beyond) or rough.get(index))
        rows.append(row._replace(stat=stats[index] if stats else 0).pack())
        if why:
            waypoint[index] = why
    return RouteRows(number=digest(*rows), rows=tuple(rows), waypoint=waypoint)


def cluster_rows(name: str, targets: Iterable[Target]) -> tuple[bytes, dict[bytes, bytes]]:
    """A cluster's value and its slots by key (bpf/include/kmesh/balance.h)."""
    number = cluster_number(name)
    counts, weights = [0] * CLASSES, [0] * CLASSES
    slots: dict[bytes, bytes] = {}
    for target in _merged(targets):
        kind = class_of(target.weight)
        key = SlotKey(number, kind << _CLASS_SHIFT | counts[kind])
        port = target.port.to_bytes(2, "big")
        slots[key.pack()] = Endpoint(mapped(target.address), port, 0, target.weight).pack()
        counts[kind] += 1
        weights[kind] += target.weight
    return Cluster(sum(weights), 0, tuple(counts), tuple(weights)).pack(), slots


def _merged(targets: Iterable[Target]) -> Iterator[Target]:
    """Each endpoint once, in an order that does not depend on the source's."""
    sums: dict[tuple[bytes, int], int] = defaultdict(int)
    for one in targets:
        sums[mapped(one.address), one.port] += one.weight
    for (address, port), weight in sorted(sums.items()):
        if weight > 0:
            host = str(ip_address(address).ipv4_mapped or ip_address(address))  # type: ignore[union-attr]
            yield Target(host, port, min(weight, MOST_WEIGHT))
