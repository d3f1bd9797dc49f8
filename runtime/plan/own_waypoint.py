# SPDX-License-Identifier: Apache-2.0
"""Services that have a waypoint of their own: what that may refuse must not go past it.

Policies that are attached to gateways or their classes are the waypoint's to carry out, and so are those attached to
services where nobody here decides them. Which gateway is meant is not asked: one in the namespace of a
waypoint, or in the root namespace, may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from runtime.model.http import Forward, PathKind, PathMatch, Route, RouteMatch
from runtime.model.mesh import IPAddress, NamespacedHostname, Service, Waypoint
from runtime.model.policy import ROOT_NAMESPACE, Policy
from runtime.model.waypoint_policies import AtWaypoints
from runtime.plan.planned import Place, Plan, PlannedHost, PlannedPort, PlannedRoute, PortKey
from runtime.tables.waypoints import goes_to_waypoint

_ALL = RouteMatch(PathMatch(PathKind.PREFIX, ""))


class OwnWaypoints:
    """Why requests to a service are its waypoint's, whatever its routes are.

    Args:
        services: by key.
        policies: those that are decided here, by key; of them those for gateways count.
        at_waypoints: those that are not.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        *,
        policies: Mapping[str, Policy],
        at_waypoints: AtWaypoints,
    ) -> None:
        self._services = services
        self._unknown = at_waypoints.unknown
        self._of: dict[str, Policy] = {}  # by service
        for one in at_waypoints.policies:
            self._of.update(dict.fromkeys(one.services, one))
        every = (*policies.values(), *at_waypoints.policies)
        self._gateways = [one for one in every if one.gateways and not one.dry_run]
        self._namespaces: dict[IPAddress, str] = {}  # of services
        if self._gateways:
            self._namespaces = {
                at.address: each.namespace for each in services.values() for at in each.addresses
            }

    @property
    def is_idle(self) -> bool:
        """Nothing holds at any waypoint."""
        return not (self._unknown or self._of or self._gateways)

    def why(self, service: Service) -> str:
        """In words; "" where its waypoint has no say of its own, or there is none."""
        if not service.waypoints:
            return ""
        found = self._of.get(service.key) or self._of_gateway(service.waypoints)
        if found is not None:
            return f"service {service.namespace}/{service.name}: its waypoint has authorization policy {found.key}"
        if self._unknown:
            return f"service {service.namespace}/{service.name}: its waypoint may have policies of its own: {self._unknown}"
        return ""

    def _of_gateway(self, waypoints: Iterable[Waypoint]) -> Policy | None:
        spaces = {self._namespace(one) for one in waypoints if self._gateways} | {ROOT_NAMESPACE}
        any_of_them = None in spaces  # it is not known whose the address is
        found = (one for one in self._gateways if any_of_them or one.namespace in spaces)
        return next(found, None)

    def _namespace(self, waypoint: Waypoint) -> str | None:
        at = waypoint.destination
        if isinstance(at, NamespacedHostname):
            return at.namespace
        return self._namespaces.get(at.address)

    def ports(self, plan: Plan) -> Iterator[tuple[PortKey, PlannedPort]]:
        """The ports at which all is a waypoint's, in place of what is planned there.

        A port that goes past the waypoint anyway stays as it is planned: nothing else would serve it.
        """
        for service in () if self.is_idle else self._services.values():
            why = self.why(service)
            numbers = {one.service_port for one in service.ports if goes_to_waypoint(one)}
            for at in service.addresses if why else ():
                for number in numbers:
                    found = plan.port_of(at, number)
                    if found is not None:
                        yield (at.address, number), _left(found, service, why)


def _left(planned: PlannedPort, service: Service, why: str) -> PlannedPort:
    """A port of which one service's requests are its waypoint's; it may stand for many services else."""
    route = Route(name="", match=_ALL, action=Forward(()))
    reasons = (*planned.reasons, why)
    every = PlannedRoute(route=route, match=_ALL, reasons=reasons, place=Place.WAYPOINT)
    return PlannedPort(
        port=replace(planned.port, listener=f"{planned.port.listener} for {service.key}"),
        hosts=(PlannedHost(name=service.hostname, domains=("*",), routes=(every,)),),
        ignore_port_in_host=planned.ignore_port_in_host,
        missing=Place.WAYPOINT,
        reasons=reasons,
    )
