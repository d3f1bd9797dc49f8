# SPDX-License-Identifier: Apache-2.0
"""Whether a request is let through, and whose policy says so: by the rules that are known, nothing is sent.

The routes of a port are made into the tables that the data path would have, and the request walks through them;
then, in the same way, through the rules of its route for this one client: so the answer is right also where the
rules are at the waypoint. The rules of other routes say nothing to it, and would be made into tables for long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from runtime.control.policy_names import named
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.model.http import HttpPort, Route, RouteTable, Step, VirtualHost
from runtime.model.mesh import IPAddress, Protocol, Service, Workload
from runtime.model.policy import Connection, Policy, decide
from runtime.plan.client import Client
from runtime.plan.normalise import normalised_head
from runtime.plan.planned import Place, Plan, PlannedPort, PlannedRoute
from runtime.plan.walk import route as walk
from runtime.tables.http_cases import split
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_routes import TableTooLargeError, compile_routes

Json = Mapping[str, Any]
_LOST = (
    "rbac.",
    "authorization polic",
)  # what of `beyond` begins so is a rule that is not known here
_NOT_ALL = ("match", "http_filters")
_ANYWHERE = ip_address("0.0.0.0")  # noqa: S104 - nothing listens there


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request to a service's address, and who sends it."""

    service: Service
    address: IPAddress
    port: int
    head: bytes
    client: Client


def authorize(asked: Asked, *, plan: Plan | None, view: View) -> Json:
    """What policies say to a request, ready for JSON.

    Args:
        asked: the request.
        plan: of the HTTP that is known; None where none is.
        view: with the workloads and the policies on connections.

    Raises:
        KmeshError: the policies ask for something of the client that is not told.
    """
    planned = plan.port_of(asked.address, asked.port) if plan else None
    http = _http(asked, planned) if planned else None
    connections = list(_connections(asked, view, judged=http is not None))
    verdicts = [http["allowed"]] if http else []
    verdicts += [
        # What a policy asks of requests only the waypoint sees.
        None if one["allowed"] and one["http_policies"] else one["allowed"]
        for one in connections
    ]
    allowed = False if False in verdicts else None if None in verdicts else True
    return {
        "service": asked.service.key,
        "address": str(asked.address),
        "port": asked.port,
        "request": asked.head.decode("latin-1").split("\r\n", 1)[0],
        "client": {
            "principal": asked.client.principal or None,
            "address": str(asked.client.address) if asked.client.address else None,
        },
        "allowed": allowed,
        "http": http,
        "connections": connections,
    }


def _http(asked: Asked, planned: PlannedPort) -> Json:
    """By the rules of the port's filters, request by request."""
    port = replace(
        planned.port,
        address=asked.address,
        steps=tuple(step for step in planned.port.steps if step is Step.RBAC),
    )
    routes = [route for host in planned.hosts for route in host.routes]
    bare = _bare(planned)
    unsure = [one for one in (*planned.reasons, *port.beyond) if one.startswith(_LOST)]
    number, why_not = _walked(bare, port, asked.head)
    taken = routes[number] if number is not None else None
    ruling = None
    if not why_not:
        cases = split(_only(bare, number), port, client=asked.client.meets)
        number, why_not = _walked(cases.table, port, asked.head)
        if number is not None:
            ruling = cases.rulings[number]
            unsure += _routes(cases.table)[number].beyond
    unsure += why_not
    told = (*port.beyond, *(taken.reasons if taken else ()))
    unsure += [one for one in told if one.startswith(_LOST) and one not in unsure]
    found = named(ruling) if ruling else {"allowed": True, "policies": [], "meaning": _FREE}
    if unsure:
        found = {"allowed": None, "policies": [], "meaning": f"cannot be told: {'; '.join(unsure)}"}
    place = taken.place if taken else planned.missing
    return {
        **found,
        "by": "waypoint" if place is Place.WAYPOINT else "gate",
        "route": _route(planned, taken),
        "notes": [one for one in dict.fromkeys(told) if one.startswith(_NOT_ALL)],
    }


def _walked(table: RouteTable, port: HttpPort, head: bytes) -> tuple[int | None, list[str]]:
    """The number of the route that a request takes in a table, and why that is not sure."""
    try:
        compiled = compile_routes(table, port=port)
    except TableTooLargeError as error:
        raise KmeshError(f"the rules cannot be looked through: {error}") from error
    routed = walk(compiled, head)
    if routed.verdict in (Verdict.DOT_SEGMENT, Verdict.ESCAPE):
        routed = walk(compiled, normalised_head(head) or head)
    if routed.verdict is not Verdict.OK:
        return None, [f"such a head is not routed here ({routed.verdict.name.lower()})"]
    if routed.route is None:
        return None, []
    rough = compiled.rough.get(routed.route)
    return routed.route, [rough] if rough else []


def _only(table: RouteTable, number: int | None) -> RouteTable:
    """The table with one route alone, or with none."""
    hosts = []
    if number is not None:
        for host in table.virtual_hosts:
            if 0 <= number < len(host.routes):
                hosts = [replace(host, routes=(host.routes[number],))]
                break
            number -= len(host.routes)
    return replace(table, virtual_hosts=tuple(hosts))


def _routes(table: RouteTable) -> list[Route]:
    return [route for host in table.virtual_hosts for route in host.routes]


_FREE = "allowed: no policy on requests holds here"


def _bare(planned: PlannedPort) -> RouteTable:
    """All its routes, whatever else they do and wherever they run."""
    hosts = tuple(
        VirtualHost(host.name, host.domains, tuple(map(_bare_route, host.routes)))
        for host in planned.hosts
    )
    return RouteTable(
        name=planned.port.table,
        virtual_hosts=hosts,
        ignore_port_in_host=planned.ignore_port_in_host,
    )


def _bare_route(planned: PlannedRoute) -> Route:
    return replace(planned.route, match=planned.match, beyond=())


def _route(planned: PlannedPort, taken: PlannedRoute | None) -> Json | None:
    for host in planned.hosts:
        for index, route in enumerate(host.routes):
            if route is taken:
                return {"virtual_host": host.name, "index": index + 1, "name": route.route.name}
    return None


def _connections(asked: Asked, view: View, *, judged: bool) -> Iterator[Json]:
    """By the policies on connections to the service's workloads, one line for those that are alike.

    Args:
        judged: what policies ask of requests is judged apart, as far as it is known.
    """
    policies = list(view.policies.copy().values())
    found: Counter[tuple[bool, str | None, str, str]] = Counter()
    for workload in view.workloads.copy().values():
        targets = list(_targets(workload, asked))
        # Of a mesh's workloads few are the service's: the others' policies are not looked for.
        mine = [one for one in policies if targets and one.applies_to(workload)]
        for target, at in targets:
            decision = decide(mine, _connection(asked, at, target, mine))
            unknown = (
                one.key for one in mine if one.judges_requests and not (judged and _is_told(one))
            )
            http = ", ".join(sorted(unknown))
            found[decision.allowed, decision.policy, decision.reason, http] += 1
    for (allowed, policy, reason, http), count in sorted(found.items(), key=repr):
        yield {
            "endpoints": count,
            "allowed": allowed,
            "policy": policy,
            "reason": reason,
            "http_policies": http.split(", ") if http else [],
        }


def _is_told(policy: Policy) -> bool:
    """All that it asks of requests is known."""
    return policy.dry_run or (policy.rules is not None and not policy.beyond)


def _targets(workload: Workload, asked: Asked) -> Iterator[tuple[int, IPAddress]]:
    for each in workload.services.get(asked.service.key, ()):
        if each.service_port == asked.port and each.protocol is Protocol.TCP:
            for address in workload.addresses:
                yield each.target_port or each.service_port, address


def _connection(
    asked: Asked, address: IPAddress, port: int, policies: Sequence[Policy]
) -> Connection:
    client = asked.client
    if client.address is None:
        for policy in policies:
            rules = (rule for group in policy.groups for rule in group)
            if any(one.source_ips or one.not_source_ips for rule in rules for one in rule):
                raise KmeshError(
                    f"policy {policy.key} asks for the client's address", hint="tell it with --ip"
                )
    source = client.address or _ANYWHERE
    return Connection(
        source=source, destination=address, destination_port=port, identity=client.identity
    )
