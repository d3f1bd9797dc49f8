# SPDX-License-Identifier: Apache-2.0
"""HTTPRoutes as they come and go, and what that changes of the picture of HTTP."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from runtime.model.http import Listener
from runtime.model.http_picture import HttpChange, HttpPicture
from runtime.model.mesh import IPAddress, Service, Workload
from runtime.model.policy import Policy
from runtime.source.gateway_join import change_between, join_routes
from runtime.source.gateway_route import GatewayRoute
from runtime.source.guarded import guarded_services
from runtime.source.kubernetes_join import Identity

ROUTE = "HTTPRoute"


class RoutePicture:
    """The routes there are, and what was last told of them."""

    def __init__(self) -> None:
        self._routes: dict[Identity, GatewayRoute] = {}
        self._told = HttpPicture()

    def put(self, identity: Identity, route: GatewayRoute | None) -> None:
        """Take a route that is new or changed, or None for one that is gone."""
        if route is None:
            self._routes.pop(identity, None)
        else:
            self._routes[identity] = route

    def change(
        self,
        *,
        services: Mapping[str, Service],
        workloads: Collection[Workload],
        policies: Iterable[Policy] = (),
        recorded: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> HttpChange | None:
        """What changed of HTTP since the last time; the first time it is the whole picture.

        Args:
            services: all there are, by key.
            workloads: all there are.
            policies: all there are; those on requests make ports HTTP that have no routes.
            recorded: what else there is, by the picture's fields; it goes before what routes say.
        """
        routes = [self._routes[identity] for identity in sorted(self._routes)]
        guarded = guarded_services(policies, services=services, workloads=workloads)
        covered = _covered((recorded or {}).get("listeners", {}).values())
        picture = join_routes(
            routes, services=services, workloads=workloads, guarded=guarded, covered=covered
        )
        for kind, states in (recorded or {}).items():
            setattr(picture, kind, {**getattr(picture, kind), **states})
        change = change_between(self._told, picture)
        self._told = picture
        return change


def _covered(listeners: Iterable[Listener]) -> frozenset[tuple[IPAddress | None, int]]:
    """Addresses (None for all) and ports of which listeners say what goes on there."""
    ports = (port for listener in listeners for port in listener.ports)
    return frozenset((port.address, port.port) for port in ports)
