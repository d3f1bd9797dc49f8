# SPDX-License-Identifier: Apache-2.0
"""What the daemon knows beside the kernel's tables: whose an address is, and who is left out, why.

The tables hold numbers; names and reasons come from the view. Made for one question: it copies
the view's tables, which the controller goes on changing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.control.view import View
from runtime.model.mesh import (
    IPAddress,
    NamespacedHostname,
    NetworkAddress,
    Service,
    ServicePort,
    Waypoint,
    Workload,
)
from runtime.model.policy import Policy
from runtime.tables.endpoints import cluster_id, family, pack_address
from runtime.tables.lookup import FrontendName, host_port
from runtime.tables.place import Place
from runtime.tables.unused import unused
from runtime.tables.waypoints import bypassing


@dataclass(frozen=True, slots=True)
class Claim:
    """A service that has a frontend, and the port by which it has it."""

    service: Service
    port: ServicePort

    def cluster(self, frontend: FrontendName) -> int:
        """The number of the cluster that goes straight to the service's endpoints."""
        return cluster_id(self.service.key, self.port, family(frontend.address))


class Known:
    """The view of one moment.

    Args:
        view: the controller's.
        place: this node.
        acceleration: its status, None where there is none to have.
    """

    def __init__(self, view: View, *, place: Place, acceleration: Mapping[str, Any] | None) -> None:
        self.place = place
        self.acceleration = acceleration
        self.trouble = view.trouble
        self.is_synced = view.synced is not None
        self.source = view.source
        self._services = view.services.copy()
        self._workloads = view.workloads.copy()
        by_key = view.policies.copy().items()
        self._policies = [policy for _, policy in sorted(by_key, key=lambda each: each[0])]
        self._failed = dict(view.failed)

    # Addresses.

    def services_at(self, address: IPAddress) -> list[Service]:
        """The services that have an address, the one that gets its ports first."""
        packed = pack_address(address)
        found = [
            one
            for one in self._services.values()
            if any(pack_address(each.address) == packed for each in one.addresses)
        ]
        return sorted(found, key=lambda one: (not one.canonical, one.key))

    def workloads_at(self, address: IPAddress) -> list[Workload]:
        packed = pack_address(address)
        found = self._workloads.values()
        return [one for one in found if any(pack_address(a) == packed for a in one.addresses)]

    def claims(self, frontend: FrontendName) -> list[Claim]:
        """The services with this address, port and protocol, the winner first."""
        return [
            Claim(service, port)
            for service in self.services_at(frontend.address)
            for port in service.ports
            if (port.service_port, str(port.protocol)) == (frontend.port, frontend.protocol)
        ]

    # Services.

    def serving(self, key: str) -> dict[str, Workload]:
        """The workloads of a service by uid."""
        return {uid: one for uid, one in self._workloads.items() if key in one.services}

    def unused(self, claim: Claim, version: int) -> Mapping[str, str]:
        """Why workloads of a service get nothing, by uid."""
        workloads = self.serving(claim.service.key)
        reasons = unused(
            claim.service,
            claim.service.key,
            claim.port,
            version,
            workloads=workloads.values(),
            place=self.place,
        )
        failed = {uid: self._failed[uid] for uid in workloads if uid in self._failed}
        return {**reasons, **failed}

    def failure(self, service: Service) -> str:
        """Why the kernel could not take (all of) a service; "" when it could."""
        return self._failed.get(service.key, "")

    def waypoints(self, frontend: FrontendName) -> Sequence[Waypoint]:
        """The waypoints of whoever has a frontend: of a service, or of a workload itself."""
        claims = self.claims(frontend)
        if claims:
            return claims[0].service.waypoints
        own = [one.waypoint for one in self.workloads_at(frontend.address) if one.waypoint]
        return own[:1]

    def bypasses_waypoint(self, claim: Claim) -> bool:
        return claim.port.service_port in bypassing(claim.service)

    def waypoint(self, waypoints: Sequence[Waypoint]) -> tuple[list[str], str]:
        """Some waypoints: the keys of their services, and their names, with weights where they share."""
        found = [self._waypoint(one) for one in waypoints]
        many = len(waypoints) > 1
        names = [
            f"{name} weight {one.weight}" if many else name
            for one, (_, name) in zip(waypoints, found, strict=True)
        ]
        return [owner for owner, _ in found if owner], ", ".join(names)

    def _waypoint(self, one: Waypoint) -> tuple[str, str]:
        where = one.destination
        if isinstance(where, NamespacedHostname):
            return str(where), f"{where}:{one.port}"
        owner = next((s.key for s in self._services.values() if where in s.addresses), "")
        name = host_port(where.address, one.port)
        return owner, f"{name} ({owner})" if owner else name

    def has_network(self, address: IPAddress) -> bool:
        """Whether this node's network has the address as some service's."""
        network = self.place.network
        return network is None or any(
            NetworkAddress(address, network) in one.addresses for one in self._services.values()
        )

    # Policies.

    def policies(self, workload: Workload) -> list[Policy]:
        """The authorization policies that govern connections to a workload, by key."""
        return [policy for policy in self._policies if policy.applies_to(workload)]
