# SPDX-License-Identifier: Apache-2.0
"""A planned port as the route table that is compiled: what is the waypoint's takes its requests there too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from runtime.model.http import (
    Forward,
    HttpPort,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
)
from runtime.plan.planned import Place, PlannedPort, PlannedRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """What is compiled for a port.

    Attributes:
        table: its routes; those that are the waypoint's say in `beyond` why.
        port: whose filters govern them.
        clusters: the names of those that the routes lead to that are not the waypoint's.
    """

    table: RouteTable
    port: HttpPort
    clusters: frozenset[str]

    @property
    def is_all_waypoint(self) -> bool:
        """No request can be served without a waypoint."""
        routes = [route for host in self.table.virtual_hosts for route in host.routes]
        return bool(routes) and all(route.beyond for route in routes)


def kernel_table(planned: PlannedPort) -> KernelTable:
    """The table of a planned port, from `make_plan`."""
    rest = _rest("; ".join(planned.reasons) or "more routes than fit")
    all_rest = planned.missing is Place.WAYPOINT
    hosts: list[VirtualHost] = []
    for host in planned.hosts:
        routes = [_route(each) for each in host.routes[: host.cut]]
        if host.cut is not None or all_rest:
            routes.append(rest)
        hosts.append(VirtualHost(host.name, host.domains, tuple(routes)))
    if all_rest and not any("*" in host.domains for host in hosts):
        hosts.append(VirtualHost("(the rest)", ("*",), (rest,)))
    return KernelTable(
        table=RouteTable(
            name=planned.port.table,
            virtual_hosts=tuple(hosts),
            ignore_port_in_host=planned.ignore_port_in_host,
        ),
        port=planned.port,
        clusters=frozenset(_clusters(route for host in hosts for route in host.routes)),
    )


def unroutable(planned: PlannedPort, why: str) -> KernelTable:
    """A table for a port whose own cannot be compiled: everything is the waypoint's.

    Without it connections would go to any endpoint of the service, whatever its routes say.
    """
    rest = VirtualHost("(the rest)", ("*",), (_rest(why),))
    return KernelTable(
        table=RouteTable(name=planned.port.table, virtual_hosts=(rest,)),
        port=planned.port,
        clusters=frozenset(),
    )


def _rest(why: str) -> Route:
    """What takes every request that no route takes, where those are the waypoint's."""
    return Route(
        name="(the rest)",
        match=RouteMatch(PathMatch(PathKind.PREFIX, "")),
        action=Forward(()),
        beyond=(why,),
    )


def _route(planned: PlannedRoute) -> Route:
    """A route by what the kernel recognises of it, and why it is the waypoint's if it is."""
    if planned.place is Place.KERNEL:
        return replace(planned.route, match=planned.match)
    why = planned.reasons or ("the enhanced path does not serve",)
    return replace(planned.route, match=planned.match, beyond=why)


def _clusters(routes: Iterable[Route]) -> Iterator[str]:
    for route in routes:
        if isinstance(route.action, Forward) and not route.beyond:
            yield from (one.name for one in route.action.clusters)
