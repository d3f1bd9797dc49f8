# SPDX-License-Identifier: Apache-2.0
"""Where this node is, and how near a workload is to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from runtime.model.mesh import BalancingMode, LoadBalancing, Locality, Scope, Workload

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """This node. `network` None means that networks are not told apart."""

    node: str = ""
    locality: Locality = field(default_factory=Locality)
    cluster: str = ""
    network: str | None = None

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
        self.place = told

    def learn(self, workloads: Iterable[Workload]) -> bool:
        """Take in workloads that came or changed; returns whether this node's place is another now."""
        if not self._told.node:
            return False
        own = [one for one in workloads if one.node == self._told.node]
        if not own:
            return False
        before, told = self.place, self._told
        if told.network is None:
            self.place = replace(self.place, network=_most(own, lambda one: one.network))
        if not told.cluster:
            self.place = replace(self.place, cluster=_most(own, lambda one: one.cluster))
        known = [one for one in own if one.locality != Locality()]
        if told.locality == Locality() and known:
            self.place = replace(self.place, locality=_most(known, lambda one: one.locality))
        return self.place != before


def _most(workloads: Iterable[Workload], of: Callable[[Workload], _T]) -> _T:
    """What most of them say, so that one odd workload does not move the node."""
    return Counter(map(of, workloads)).most_common(1)[0][0]
