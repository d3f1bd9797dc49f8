# SPDX-License-Identifier: Apache-2.0
"""A planned port as the route table that is compiled: what is the waypoint's takes its requests there too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from runtime.model.http import (
    Forward,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
)
from runtime.plan.judge import effects
from runtime.plan.planned import Place, PlannedHost, PlannedPort, PlannedRoute

# What takes every request that no route takes, where those are the waypoint's.
_REST = Route(
    name="(the rest)", match=RouteMatch(PathMatch(PathKind.PREFIX, "")), action=Forward(())
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """What is compiled for a port.

    Attributes:
        table: its routes; what the port's filters do to them stands in each.
        waypoint: routes that are the waypoint's, by index through all virtual hosts, and why.
        clusters: the names of those that the others lead to.
        merge_slashes: as the port says.
    """

    table: RouteTable
    waypoint: Mapping[int, str]
    clusters: frozenset[str]
    merge_slashes: bool

    @property
    def is_all_waypoint(self) -> bool:
        """No request can be served without a waypoint."""
        routes = sum(len(host.routes) for host in self.table.virtual_hosts)
        return routes > 0 and len(self.waypoint) == routes


def kernel_table(planned: PlannedPort, *, why_rest: str = "") -> KernelTable:
    """The table of a planned port.

    Args:
        planned: from `make_plan`.
        why_rest: why requests that no route takes are the waypoint's, where the plan has no reason.
    """
    rest = "; ".join(planned.reasons) or why_rest or "more routes than fit"
    hosts: list[VirtualHost] = []
    waypoint: dict[int, str] = {}
    clusters: set[str] = set()
    index = 0
    everything_is_named = False
    for host in planned.hosts:
        routes = list(_routes(host, planned))
        for each, (_, why) in enumerate(routes):
            if why:
                waypoint[index + each] = why
        hosts.append(VirtualHost(host.name, host.domains, tuple(route for route, _ in routes)))
        clusters |= _clusters(route for route, why in routes if not why)
        index += len(routes)
        if host.cut is not None or planned.missing is Place.WAYPOINT:
            hosts[-1] = replace(hosts[-1], routes=(*hosts[-1].routes, _REST))
            waypoint[index] = rest
            index += 1
        everything_is_named |= "*" in host.domains
    if planned.missing is Place.WAYPOINT and not everything_is_named:
        hosts.append(VirtualHost("(the rest)", ("*",), (_REST,)))
        waypoint[index] = rest
    return KernelTable(
        table=RouteTable(
            name=planned.port.table,
            virtual_hosts=tuple(hosts),
            ignore_port_in_host=planned.ignore_port_in_host,
        ),
        waypoint=waypoint,
        clusters=frozenset(clusters),
        merge_slashes=planned.port.merge_slashes,
    )


def unroutable(planned: PlannedPort, why: str) -> KernelTable:
    """A table for a port whose own cannot be compiled: everything is the waypoint's.

    Without it connections would go to any endpoint of the service, whatever its routes say.
    """
    return KernelTable(
        table=RouteTable(
            name=planned.port.table,
            virtual_hosts=(VirtualHost("(the rest)", ("*",), (_REST,)),),
        ),
        waypoint={0: why},
        clusters=frozenset(),
        merge_slashes=planned.port.merge_slashes,
    )


def _routes(host: PlannedHost, planned: PlannedPort) -> Iterator[tuple[Route, str]]:
    """The routes that fit, each with why it is the waypoint's."""
    for each in host.routes[: host.cut]:
        abort, limit, rules = effects(each.route, planned.port)
        route = replace(
            each.route, match=each.match, abort=abort, rate_limit=limit, rbac=rules or None
        )
        yield route, _why(each)


def _why(planned: PlannedRoute) -> str:
    if planned.place is Place.KERNEL:
        return ""
    return "; ".join(planned.reasons) or "the enhanced path does not serve"


def _clusters(routes: Iterable[Route]) -> set[str]:
    actions = (route.action for route in routes)
    return {
        one.name for action in actions if isinstance(action, Forward) for one in action.clusters
    }
