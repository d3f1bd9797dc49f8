# SPDX-License-Identifier: Apache-2.0
"""Waypoints: which services send their connections to one, and the clusters of waypoints.

A waypoint's cluster belongs to the waypoint, not to the services that use it: an instance more or
less is one slot, however many services there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from runtime.model.mesh import (
    AppProtocol,
    IPAddress,
    NamespacedHostname,
    NetworkAddress,
    Protocol,
    Service,
    ServicePort,
    Waypoint,
)
from runtime.tables.clusters import Cluster, Clusters, Part
from runtime.tables.endpoints import cluster_id, family, is_port

FLAG = 1  # KMESH_FRONTEND_WAYPOINT
# The client speaks first in these; in any other the server may, and would wait for ever.
_CLIENT_FIRST = {AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC, AppProtocol.TLS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The instances of a waypoint, or of several that share by weight, in one address family."""

    parts: tuple[Part, ...]
    version: int

    @property
    def name(self) -> str:
        """The waypoint's service; of several, all with their weights."""
        if len(self.parts) == 1:
            return self.parts[0].owner
        return ", ".join(f"{part} weight {part.weight}" for part in self.parts)

    @property
    def port(self) -> ServicePort:
        return self.parts[0].port

    @property
    def id(self) -> int:
        return cluster_id(f"waypoint {self.name}", self.port, self.version)


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
        self._by_id: dict[int, Cluster] = {}
        self._open: dict[str, dict[int, Cluster]] = {}  # by the waypoint's service
        self._owners: dict[NetworkAddress, set[str]] = {}
        self._address_users: dict[NetworkAddress, set[str]] = {}
        self._addresses_of: dict[str, set[NetworkAddress]] = {}
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

    def wanted(
        self, user: str, waypoints: Iterable[Waypoint], addresses: Iterable[IPAddress]
    ) -> Mapping[int, Target]:
        """Where a user's connections go by address family; empty when it has no waypoint.

        Args:
            user: the key of a service, or the uid of a workload.
            waypoints: its waypoints.
            addresses: its addresses.
        """
        self._forget_address_user(user)
        weights: Counter[tuple[NetworkAddress | NamespacedHostname, int]] = Counter()
        for one in waypoints:
            if is_port(one.port):
                weights[one.destination, one.port] += one.weight
        if not weights:
            return {}
        parts = [self._part(user, *where, weight) for where, weight in weights.items()]
        if len(parts) == 1:
            parts = [replace(parts[0], weight=1)]
        ordered = tuple(sorted(parts, key=str))
        versions = {family(address) for address in addresses}
        return {version: Target(parts=ordered, version=version) for version in versions}

    def _part(
        self, user: str, where: NetworkAddress | NamespacedHostname, port: int, weight: int
    ) -> Part:
        at = ServicePort(service_port=port)
        if isinstance(where, NamespacedHostname):
            return Part(owner=str(where), port=at, weight=weight)
        self._address_users.setdefault(where, set()).add(user)
        self._addresses_of.setdefault(user, set()).add(where)
        owner = min(self._owners.get(where, ()), default=None)
        if owner is not None:
            return Part(owner=owner, port=at, weight=weight)
        return Part(owner=f"address {where}", port=at, weight=weight, address=where)

    def _forget_address_user(self, user: str) -> None:
        for address in self._addresses_of.pop(user, ()):
            self._address_users[address].discard(user)
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
            cluster = self._by_id.pop(target.id, None)
            if cluster is None:
                continue  # there never was room for it
            self._clusters.retire(cluster)
            for owner in {part.owner for part in target.parts}:  # two may be of one service
                del self._open[owner][target.id]
                if not self._open[owner]:
                    del self._open[owner]
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
        if target.id in self._by_id:
            return True
        cluster = self._clusters.open(
            target.id, service=target.name, port=target.port, version=target.version
        )
        if cluster is None:
            return False
        cluster.parts = target.parts
        self._by_id[target.id] = cluster
        for part in target.parts:
            self._open.setdefault(part.owner, {})[target.id] = cluster
        self._fill(cluster)
        return True
