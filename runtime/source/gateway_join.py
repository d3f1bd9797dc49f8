# SPDX-License-Identifier: Apache-2.0
"""HTTPRoutes, services and their workloads, joined into the model of HTTP.

A service port that a route is for becomes an HTTP port at each of the service's addresses, with a table of
one virtual host. Rules of all routes for it are put into the order of the Gateway API: the most
exact match first. A request that no rule matches is answered 404; one whose rule has nowhere to go, 500.
A port without routes whose requests policies judge gets one, which leads to the service itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from runtime.model.http import (
    Action,
    Balancer,
    CircuitBreakers,
    Cluster,
    DirectResponse,
    Endpoints,
    Forward,
    HttpEndpoint,
    HttpPort,
    Listener,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.http_picture import HttpChange, HttpPicture
from runtime.model.mesh import AppProtocol, IPAddress, Protocol, Service, Workload
from runtime.source.gateway_route import GatewayRoute, GatewayRule

_ALL_PATHS = PathMatch(PathKind.PREFIX, "")
_NOWHERE = DirectResponse(500)
_NOT_HTTP = (AppProtocol.TCP, AppProtocol.TLS)
_BEYOND = {
    AppProtocol.HTTP2: "appProtocol: HTTP/2 to the endpoints",
    AppProtocol.GRPC: "appProtocol: gRPC to the endpoints",
    AppProtocol.TLS: "appProtocol: TLS to the endpoints",
}
_EXACTNESS = {
    PathKind.EXACT: 0,
    PathKind.SEPARATED_PREFIX: 1,
    PathKind.PREFIX: 1,
    PathKind.REGEX: 2,
}


def join_routes(
    routes: Iterable[GatewayRoute],
    *,
    services: Mapping[str, Service],
    workloads: Collection[Workload],
    guarded: Collection[str] = (),
    covered: Collection[tuple[IPAddress | None, int]] = (),
) -> HttpPicture:
    """The HTTP that the routes tell, whole.

    Args:
        routes: all there are.
        services: all there are, by key.
        workloads: all there are.
        guarded: keys of services whose requests are judged by policies.
        covered: addresses (None for all) and ports whose routes are told elsewhere.
    """
    joined = _Joined(list(routes), services, workloads, is_needed=bool(guarded))
    for key in sorted(guarded):
        joined.lead_to_itself(services[key], covered)
    return joined.picture()


def change_between(before: HttpPicture, after: HttpPicture) -> HttpChange | None:
    """What to tell who knows the one to have him know the other; None where they are the same."""
    if not before.known:
        return HttpChange(
            complete=True,
            listeners=after.listeners,
            tables=after.tables,
            clusters=after.clusters,
            endpoints=after.endpoints,
        )
    parts: dict[str, Any] = {}
    for name in ("listeners", "tables", "clusters", "endpoints"):
        old, new = getattr(before, name), getattr(after, name)
        changed = {key: state for key, state in new.items() if old.get(key) != state}
        parts[name] = changed | dict.fromkeys(old.keys() - new.keys())
    return HttpChange(**parts) if any(parts.values()) else None


class _Joined:
    """One joining; what is found on the way is kept."""

    def __init__(
        self,
        routes: list[GatewayRoute],
        services: Mapping[str, Service],
        workloads: Iterable[Workload],
        *,
        is_needed: bool,
    ) -> None:
        self._services = services
        self._rules: defaultdict[tuple[str, int], list[tuple[Any, Route]]] = defaultdict(list)
        self._clusters: dict[str, Cluster] = {}
        self._serving: defaultdict[str, list[Workload]] = defaultdict(list)
        for route in routes:
            self._attach(route)
        for workload in workloads if routes or is_needed else ():
            for key in workload.services:
                self._serving[key].append(workload)

    def picture(self) -> HttpPicture:
        listeners, tables = {}, {}
        for (key, port), ranked in sorted(self._rules.items()):
            service = self._services[key]
            ranked.sort(key=lambda each: each[0])
            name = f"{service.namespace}/{service.name}:{port}"
            routes = tuple(route for _, route in ranked)
            tables[name] = RouteTable(name=name, virtual_hosts=(VirtualHost(name, ("*",), routes),))
            listeners[name] = self._listener(name, service, port)
        return HttpPicture(
            listeners=listeners,
            tables=tables,
            clusters=self._clusters,
            endpoints={name: self._endpoints(each) for name, each in self._clusters.items()},
            known=True,
        )

    def lead_to_itself(
        self, service: Service, covered: Collection[tuple[IPAddress | None, int]]
    ) -> None:
        """Give each port of a service that may be HTTP, and that no route is for, one of its own."""
        for port in self._ports(service.key, 0):
            at = {(each.address, port) for each in service.addresses} | {(None, port)}
            if (service.key, port) in self._rules or at & set(covered):
                continue
            action = Forward((WeightedCluster(self._cluster(service.key, port)),))
            route = Route(name="default", match=RouteMatch(_ALL_PATHS), action=action)
            self._rules[service.key, port].append(((), route))

    def _attach(self, route: GatewayRoute) -> None:
        """Add a route's rules to each port that it is for."""
        wanted = {
            (parent.service, port)
            for parent in route.parents
            for port in self._ports(parent.service, parent.port)
        }
        for where in sorted(wanted):
            for number, rule in enumerate(route.rules):
                for match, made in self._routes(route, number, rule):
                    self._rules[where].append((_rank(route, number, match), made))

    def _ports(self, key: str, wanted: int) -> Iterator[int]:
        service = self._services.get(key)
        for port in service.ports if service else ():
            if port.protocol is not Protocol.TCP or wanted not in (0, port.service_port):
                continue
            if wanted or port.app_protocol not in _NOT_HTTP:
                yield port.service_port

    def _routes(
        self, route: GatewayRoute, number: int, rule: GatewayRule
    ) -> Iterator[tuple[RouteMatch, Route]]:
        name = f"{route.namespace}/{route.name}/{rule.name or number + 1}"
        action = self._action(rule)
        for match in rule.matches:
            yield match, Route(name=name, match=match, action=action, beyond=rule.beyond)

    def _action(self, rule: GatewayRule) -> Action:
        if rule.redirect is not None:
            return rule.redirect
        shares = [
            WeightedCluster(self._cluster(each.service, each.port), each.weight)
            for each in rule.backends
        ]
        if not any(each.weight for each in shares):
            return _NOWHERE
        return Forward(tuple(shares))

    def _cluster(self, key: str, port: int) -> str:
        """The name of the cluster of a service's port; one that is not there is not made."""
        namespace, _, hostname = key.partition("/")
        name = f"outbound|{port}||{hostname}"
        service = self._services.get(key)
        found = [p for p in service.ports if p.service_port == port] if service else []
        if found and name not in self._clusters:
            beyond = _BEYOND.get(found[0].app_protocol)
            self._clusters[name] = Cluster(
                name=name,
                hostname=hostname,
                namespace=namespace,
                port=port,
                endpoints_name=name,
                balancer=Balancer.ROUND_ROBIN,
                breakers=CircuitBreakers(),
                panic_percent=0,
                beyond=(beyond,) if beyond else (),
            )
        return name

    def _endpoints(self, cluster: Cluster) -> Endpoints:
        made = []
        for workload in sorted(self._serving[cluster.service], key=lambda each: each.uid):
            targets = [
                port.target_port
                for port in workload.services[cluster.service]
                if port.service_port == cluster.port and port.protocol is Protocol.TCP
            ]
            # One address of each: with both of a pod that has two, it would count twice.
            made += [
                HttpEndpoint(
                    address=address,
                    port=targets[0],
                    weight=workload.capacity,
                    healthy=workload.healthy,
                    locality=workload.locality,
                )
                for address in workload.addresses[: len(targets[:1])]
            ]
        return Endpoints(name=cluster.endpoints_name, endpoints=tuple(made))

    def _listener(self, name: str, service: Service, port: int) -> Listener:
        ports = tuple(
            HttpPort(
                listener=name,
                address=each.address,
                port=port,
                table=name,
                opaque_cluster=self._cluster(service.key, port),
                normalize_path=True,  # as Istio's mesh configuration has it unasked
            )
            for each in service.addresses
        )
        return Listener(name=name, ports=ports, tables=(name,))


def _rank(route: GatewayRoute, number: int, match: RouteMatch) -> tuple[Any, ...]:
    """Smaller goes first: exact path, longest prefix, a method, most headers, most parameters.

    Then the oldest route, the first by name, and the order within it.
    """
    method = any(header.name == ":method" for header in match.headers)
    return (
        _EXACTNESS[match.path.kind],
        -len(match.path.value.rstrip("/")),
        not method,
        -(len(match.headers) - method),
        -len(match.query),
        (not route.created, route.created),
        (route.namespace, route.name),
        number,
    )
