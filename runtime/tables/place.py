# SPDX-License-Identifier: Apache-2.0
"""Where this node is, and how near a workload is to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.model.mesh import BalancingMode, LoadBalancing, Locality, Scope, Workload


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
