# SPDX-License-Identifier: Apache-2.0
"""Waypoints: which services send their connections to one, and the clusters of waypoints.

A waypoint's cluster belongs to the waypoint, not to the services that use it: an instance more or
less is one slot, however many services there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from runtime.model.mesh import (
    AppProtocol,
    NamespacedHostname,
    NetworkAddress,
    Protocol,
    Service,
    ServicePort,
)
from runtime.tables.clusters import Cluster, Clusters
from runtime.tables.endpoints import cluster_id, family, fixed, is_port

FLAG = 1  # KMESH_FRONTEND_WAYPOINT
# The client speaks first in these; in any other the server may, and would wait for ever.
_CLIENT_FIRST = {AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC, AppProtocol.TLS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The instances of a waypoint on one port, in one address family.

    Attributes:
        owner: the key of the waypoint's service; its address where no service has that.
        address: the address where no service has it, None otherwise.
    """

    owner: str
    port: ServicePort
    version: int
    address: NetworkAddress | None = None

    @property
    def id(self) -> int:
        return cluster_id(f"waypoint {self.owner}", self.port, self.version)


def goes_to_waypoint(port: ServicePort) -> bool:
    """Whether connections to a port can begin with a header for the waypoint."""
    return port.protocol is Protocol.TCP and port.app_protocol in _CLIENT_FIRST


def bypassing(service: Service) -> tuple[int, ...]:
    """The TCP ports of a service with a waypoint that go past it, as the server may speak first."""
    if not service.waypoints:
        return ()
    return tuple(
        port.service_port
        for port in service.ports
        if port.protocol is Protocol.TCP and not goes_to_waypoint(port)
    )


class Waypoints:
    """Who uses which waypoint, and the clusters of those in use.

    Args:
        clusters: where the clusters are opened.
        fill: brings a cluster to its service's workloads.
    """

    def __init__(self, clusters: Clusters, *, fill: Callable[[Cluster], None]) -> None:
        self._clusters = clusters
        self._fill = fill
        self._open: dict[str, dict[int, Cluster]] = {}  # by the waypoint's service
        self._owners: dict[NetworkAddress, set[str]] = {}
        self._address_users: dict[NetworkAddress, set[str]] = {}
        self._address_of: dict[str, NetworkAddress] = {}
        self._users: dict[int, set[str]] = {}
        self._targets: dict[str, dict[int, Target]] = {}  # by the service that uses them

    def set_addresses(self, key: str, before: Service | None, after: Service | None) -> set[str]:
        """Note a service's addresses; returns who must look for their waypoint again."""
        old = set(before.addresses) if before else set()
        new = set(after.addresses) if after else set()
        for address in old - new:
            self._owners[address].discard(key)
            if not self._owners[address]:
                del self._owners[address]
        for address in new - old:
            self._owners.setdefault(address, set()).add(key)
        changed = (self._address_users.get(address, set()) for address in old ^ new)
        return set().union(*changed) - {key}

    def wanted(self, key: str, service: Service | None) -> Mapping[int, Target]:
        """The waypoint of a service by address family; empty when it has none."""
        self._forget_address_user(key)
        if service is None or not service.waypoints:
            return {}
        waypoint = max(service.waypoints, key=lambda one: one.weight)
        if not is_port(waypoint.port):
            return {}
        port = ServicePort(service_port=waypoint.port)
        versions = {family(one.address) for one in service.addresses}
        if isinstance(waypoint.destination, NamespacedHostname):
            owner, address = str(waypoint.destination), None
        else:
            self._address_users.setdefault(waypoint.destination, set()).add(key)
            self._address_of[key] = waypoint.destination
            found = min(self._owners.get(waypoint.destination, ()), default=None)
            owner = found or f"address {waypoint.destination}"
            address = None if found else waypoint.destination
        return {
            version: Target(owner=owner, port=port, version=version, address=address)
            for version in versions
        }

    def _forget_address_user(self, key: str) -> None:
        address = self._address_of.pop(key, None)
        if address is not None:
            self._address_users[address].discard(key)
            if not self._address_users[address]:
                del self._address_users[address]

    def clusters_of(self, key: str) -> tuple[Cluster, ...]:
        """The clusters in which a service's workloads are the instances of a waypoint."""
        return tuple(self._open.get(key, {}).values())

    def use(self, key: str, targets: Iterable[Target]) -> bool:
        """Open what a service uses now, and retire what nobody uses any more.

        Returns:
            False when a cluster did not fit: its users are refused, as nothing goes past a waypoint.
        """
        after = {target.id: target for target in targets}
        for target in self._note(key, after):
            clusters = self._open.get(target.owner, {})
            if target.id in clusters:
                self._clusters.retire(clusters.pop(target.id))
            if not clusters:
                self._open.pop(target.owner, None)
        fitting = [self._ensure(target) for target in after.values()]  # each, not up to the first
        return all(fitting)

    def _note(self, key: str, after: dict[int, Target]) -> list[Target]:
        """Note what a service uses; returns what nobody uses any more."""
        before = self._targets.pop(key, {})
        if after:
            self._targets[key] = after
        for number in after:
            self._users.setdefault(number, set()).add(key)
        closed = []
        for number in before.keys() - after.keys():
            self._users[number].discard(key)
            if not self._users[number]:
                del self._users[number]
                closed.append(before[number])
        return closed

    def _ensure(self, target: Target) -> bool:
        if target.id in self._open.get(target.owner, {}):
            return True
        cluster = self._clusters.open(
            target.id, service=target.owner, port=target.port, version=target.version
        )
        if cluster is None:
            return False
        cluster.is_waypoint = True
        self._open.setdefault(target.owner, {})[target.id] = cluster
        if target.address is None:
            self._fill(cluster)
        elif family(target.address.address) == target.version:
            only = fixed(target.address.address, target.port)
            self._clusters.set_slot(cluster, target.owner, only)
        return True
