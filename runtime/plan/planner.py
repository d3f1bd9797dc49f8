# SPDX-License-Identifier: Apache-2.0
"""The planner: the same model and abilities always give the same plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runtime.model.http import HttpPort, RouteTable, VirtualHost
from runtime.model.http_picture import HttpPicture
from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy
from runtime.model.waypoint_policies import AtWaypoints
from runtime.plan.ability import Ability
from runtime.plan.aliases import aliases, short_names
from runtime.plan.attached import Attached
from runtime.plan.clusters import ClusterJudge
from runtime.plan.judge import RouteJudge
from runtime.plan.own_waypoint import OwnWaypoints
from runtime.plan.planned import Place, Plan, PlannedHost, PlannedPort, PlannedRoute


def make_plan(
    http: HttpPicture,
    *,
    ability: Ability,
    services: Mapping[str, Service] | None = None,
    workloads: Mapping[str, Workload] | None = None,
    policies: Mapping[str, Policy] | None = None,
    at_waypoints: AtWaypoints | None = None,
) -> Plan:
    """Give each route its place.

    Args:
        http: listeners, tables, clusters and endpoints.
        ability: what the path can do here.
        services: by key; their short names are hosts too.
        workloads: by uid; whose the endpoints are.
        policies: by key; they guard workloads and services, by rules where these are known.
        at_waypoints: policies that are not among these; they hold at services' own waypoints.
    """
    clusters = ClusterJudge(
        http, workloads=workloads or {}, policies=policies or {}, ability=ability
    )
    names = short_names((services or {}).values())
    attached = Attached(services or {}, policies or {})
    ports = {
        where: _port(
            attached.guarded(port, table := http.table_of(port)),
            table,
            names,
            clusters=clusters,
            ability=ability,
        )
        for where, port in http.ports().items()
    }
    plan = Plan(
        ports=ports,
        opaque=http.opaque(),
        why_not="" if ability.serves else ability.why_not,
        guarding=clusters.guarding,
    )
    own = OwnWaypoints(
        services or {}, policies=policies or {}, at_waypoints=at_waypoints or AtWaypoints()
    )
    theirs = dict(own.ports(plan))
    return replace(plan, ports=ports | theirs) if theirs else plan


def _port(
    port: HttpPort,
    table: RouteTable | None,
    names: Mapping[str, str],
    *,
    clusters: ClusterJudge,
    ability: Ability,
) -> PlannedPort:
    if table is None:
        reasons = (f"route table {port.table}: it has not come yet", *port.beyond)
        return PlannedPort(port=port, missing=Place.WAYPOINT, reasons=reasons)
    reasons = tuple(dict.fromkeys((*table.beyond, *port.beyond, *_too_many(table, ability))))
    judge = RouteJudge(port, clusters=clusters, ability=ability, always=reasons)
    hosts: list[PlannedHost] = []
    room = ability.limits.routes
    added = aliases(table, names)
    for host in table.virtual_hosts:
        planned = _host(host, judge, room=room, serves=ability.serves)
        more = added.get(host.name, ())
        hosts.append(replace(planned, domains=(*host.domains, *more)) if more else planned)
        room = max(room - len(host.routes), 0)
    at_waypoint = reasons or not ability.serves
    return PlannedPort(
        port=port,
        hosts=tuple(hosts),
        ignore_port_in_host=table.ignore_port_in_host,
        missing=Place.WAYPOINT if at_waypoint else Place.KERNEL,
        reasons=reasons,
    )


def _too_many(table: RouteTable, ability: Ability) -> tuple[str, ...]:
    """None of them may be left out: a request for it would go to a host that is less exact."""
    most = ability.limits.virtual_hosts
    if len(table.virtual_hosts) <= most:
        return ()
    return (f"virtual_hosts: {len(table.virtual_hosts)} on this port, more than {most}",)


def _host(host: VirtualHost, judge: RouteJudge, *, room: int, serves: bool) -> PlannedHost:
    routes = []
    for index, route in enumerate(host.routes):
        guarded, match, reasons = judge.judge(route)
        if index >= room:
            reasons = (*reasons, "routes: more on this port than fit")
        place = Place.WAYPOINT if reasons or not serves else Place.KERNEL
        routes.append(PlannedRoute(route=guarded, match=match, reasons=reasons, place=place))
    return PlannedHost(
        name=host.name,
        domains=host.domains,
        routes=tuple(routes),
        cut=room if len(routes) > room else None,
    )
