# SPDX-License-Identifier: Apache-2.0
"""Where this node is, and how near a workload is to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from runtime.model.mesh import BalancingMode, LoadBalancing, Locality, Scope, Workload
from runtime.source.update import Update

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """This node, and what holds for it.

    Attributes:
        network: None means that networks are not told apart.
        waypoint_ports: pairs of a port that a waypoint would be connected to, and of the one to take instead. Istio
            names the port for HBONE, a tunnel that is not spoken here; connections with a PROXY header have another.
    """

    node: str = ""
    locality: Locality = field(default_factory=Locality)
    cluster: str = ""
    network: str | None = None
    waypoint_ports: tuple[tuple[int, int], ...] = ()

    def waypoint_port(self, port: int) -> int:
        """Where a waypoint is connected to that is told to listen on a port."""
        return next((other for named, other in self.waypoint_ports if named == port), port)

    def shares(self, scope: Scope, workload: Workload) -> bool:
        """Whether a workload is in the same region, zone... as this node."""
        match scope:
            case Scope.REGION:
                return workload.locality.region == self.locality.region
            case Scope.ZONE:
                return workload.locality.zone == self.locality.zone
            case Scope.SUBZONE:
                return workload.locality.subzone == self.locality.subzone
            case Scope.NODE:
                return workload.node == self.node
            case Scope.CLUSTER:
                return workload.cluster == self.cluster
            case Scope.NETWORK:
                return self.network is None or workload.network == self.network

    def rank(self, balancing: LoadBalancing, workload: Workload) -> int | None:
        """How many of the preferred scopes in a row are shared: more is nearer.

        Returns:
            0 for everyone where the service prefers nothing; None for who must not be used.
        """
        if balancing.mode not in {BalancingMode.STRICT, BalancingMode.FAILOVER}:
            return 0
        shared = 0
        for scope in balancing.routing_preference:
            if not self.shares(scope, workload):
                break
            shared += 1
        strict = balancing.mode is BalancingMode.STRICT
        return None if strict and shared < len(balancing.routing_preference) else shared

    def __str__(self) -> str:
        where = self.locality
        parts = {
            "node": self.node,
            "cluster": self.cluster,
            "network": self.network if self.network != "" else "the default one",
            "locality": f"{where.region}/{where.zone}/{where.subzone}".rstrip("/"),
        }
        return ", ".join(f"{name} {value}" for name, value in parts.items() if value)


class Whereabouts:
    """This node's place: as it was told, and the rest as this node's own workloads say.

    Args:
        told: what is known from the start; it is never overruled.
    """

    def __init__(self, told: Place) -> None:
        self._told = told
        self._own: dict[str, Workload] = {}
        self.place = told

    def learn(self, update: Update) -> bool:
        """Take in an update; returns whether this node's place is another now."""
        before = self._own.copy()
        if update.complete:
            self._own = {}
        for uid in update.removed_workloads:
            self._own.pop(uid, None)
        for one in update.workloads:
            if self._told.node and one.node == self._told.node:
                self._own[one.uid] = one
            elif self._own:
                self._own.pop(one.uid, None)
        return bool(self._own) and self._own != before and self._settle()

    def _settle(self) -> bool:
        before, told, own = self.place, self._told, self._own.values()
        if told.network is None:
            network = _most((one.network for one in own), before.network)
            self.place = replace(self.place, network=network)
        if not told.cluster:
            cluster = _most((one.cluster for one in own), before.cluster)
            self.place = replace(self.place, cluster=cluster)
        if told.locality == Locality():
            known = (one.locality for one in own if one.locality != Locality())
            self.place = replace(self.place, locality=_most(known, before.locality))
        return self.place != before


def _most(said: Iterable[_T], now: _T) -> _T:
    """What most of them say, so that one odd workload does not move the node; nor does a draw."""
    counted = Counter(said)
    most = max(counted.values(), default=0)
    return now if counted[now] == most else counted.most_common(1)[0][0]
