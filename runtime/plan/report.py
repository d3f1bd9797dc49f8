# SPDX-License-Identifier: Apache-2.0
"""The plan as rows: service by service, route by route, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runtime.model.mesh import Protocol, Service
from runtime.plan.planned import Place, Plan, PlannedHost, PlannedPort, PlannedRoute, host_for
from runtime.plan.words import action_words, match_words, policy_words
from runtime.tables.http_effects import ordered_effects

Row = Mapping[str, Any]


def route_rows(plan: Plan, services: Iterable[Service]) -> list[Row]:
    """Every route of every service, ready for JSON; services by key, ports by number."""
    ordered = sorted(services, key=lambda service: service.key)
    return [row for service in ordered for row in _service(plan, service)]


def _service(plan: Plan, service: Service) -> Iterator[Row]:
    ports = sorted({p.service_port for p in service.ports if p.protocol is Protocol.TCP})
    for number in ports:
        planned = {
            id(found): found
            for address in service.addresses
            if (found := plan.port_of(address, number)) is not None
        }
        for each in planned.values():
            yield from _port(plan, service, number, each)


def _port(plan: Plan, service: Service, number: int, planned: PlannedPort) -> Iterator[Row]:
    about: dict[str, Any] = {
        "service": service.key,
        "port": number,
        "listener": planned.port.listener,
        "table": planned.port.table,
    }
    host = host_for(planned.hosts, service.hostname)
    if host is None:
        yield about | _missing(plan, planned)
        return
    for index, route in enumerate(host.routes):
        yield about | _route(plan, planned, host, index, route)


def _missing(plan: Plan, planned: PlannedPort) -> dict[str, Any]:
    return {
        "virtual_host": None,
        "domains": [],
        "index": 0,
        "route": "",
        "match": "everything: there is no virtual host",
        "action": "answer 404",
        "place": str(planned.missing),
        "able": not planned.reasons,
        "policies": [],
        "why": _why(plan, planned.reasons),
    }


def _route(
    plan: Plan, port: PlannedPort, host: PlannedHost, index: int, planned: PlannedRoute
) -> dict[str, Any]:
    route = planned.route
    guards = ordered_effects(route, port.port).rules
    return {
        "virtual_host": host.name,
        "domains": list(host.domains),
        "index": index + 1,
        "route": route.name,
        "match": match_words(route.match),
        "action": action_words(route.action),
        "place": str(planned.place),
        "able": not planned.reasons,
        "policies": sorted({policy_words(one.name)[0] for rbac in guards for one in rbac.policies}),
        "why": _why(plan, planned.reasons),
    }


def _why(plan: Plan, reasons: tuple[str, ...]) -> list[str]:
    """The path's own reason first; and that it is the only one, where it is."""
    if not plan.why_not:
        return list(reasons)
    if reasons:
        return [plan.why_not, *reasons]
    return [plan.why_not, f"could run in the {Place.KERNEL}"]
