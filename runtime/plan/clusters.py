# SPDX-License-Identifier: Apache-2.0
"""Whether the kernel can send requests to a cluster, and if not, why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runtime.model.http import Balancer, Cluster, Endpoints, HttpEndpoint
from runtime.model.http_picture import HttpPicture
from runtime.model.mesh import Workload
from runtime.model.policy import Policy
from runtime.plan.ability import Ability, Feature
from runtime.plan.guards import NOTHING, Guarding, Guards, Rules
from runtime.tables.http_govern import has_localities, has_priorities, is_bounded

_HASHING = (Balancer.RING_HASH, Balancer.MAGLEV)


class ClusterJudge:
    """Reasons by cluster, each found once.

    Args:
        http: clusters and endpoints.
        workloads: whose the endpoints are.
        policies: what guards them.
        ability: what the path can do.

    Attributes:
        guarding: what guards endpoints of a cluster, where anything does, as far as it was asked for.
    """

    def __init__(
        self,
        http: HttpPicture,
        *,
        workloads: Mapping[str, Workload],
        policies: Mapping[str, Policy],
        ability: Ability,
    ) -> None:
        self._http = http
        self._ability = ability
        self._found: dict[str, tuple[str, ...]] = {}
        self._guards = Guards(workloads, policies)
        self._rules: dict[str, Rules] = {}
        self.guarding: dict[str, Guarding] = {}

    def reasons(self, name: str) -> tuple[str, ...]:
        """Why requests to a cluster are the waypoint's; empty where they are not."""
        if name not in self._found:
            self._found[name] = tuple(dict.fromkeys(self._judge(name)))
        return self._found[name]

    def _judge(self, name: str) -> Iterator[str]:
        cluster = self._http.clusters.get(name)
        if cluster is None:
            yield f"cluster {name}: it is not known"
            return
        where = f"cluster {name}: "
        for told in cluster.beyond:
            yield where + told
        if cluster.beyond:
            return
        endpoints = self._http.endpoints_of(cluster)
        if endpoints is None:
            yield where + "its endpoints have not come yet"
            return
        for told in (*endpoints.beyond, *self._features(cluster, endpoints)):
            yield where + told
        yield from self._endpoints(cluster, endpoints)

    def _features(self, cluster: Cluster, endpoints: Endpoints) -> Iterator[str]:
        asked = {
            Feature.HASH: cluster.balancer in _HASHING,
            Feature.BREAKERS: is_bounded(cluster.breakers),
            Feature.OUTLIERS: cluster.outlier is not None,
            Feature.LOCALITIES: has_localities(cluster, endpoints),
            Feature.PRIORITIES: has_priorities(endpoints),
        }
        for feature, wanted in asked.items():
            if wanted and feature in self._ability.lacks:
                yield f"{feature}: {self._ability.lacks[feature]}"

    def _endpoints(self, cluster: Cluster, endpoints: Endpoints) -> Iterator[str]:
        for each in endpoints.endpoints:
            transport = _transport(cluster, each)
            if transport:
                yield f"cluster {cluster.name}: transport_socket_matches {transport}: not plaintext"
        yield from self._guarded(cluster, endpoints)

    def _guarded(self, cluster: Cluster, endpoints: Endpoints) -> Iterator[str]:
        """Why what guards the endpoints cannot be decided before one is chosen."""
        found = {self._guards.of(each.address, each.port) for each in endpoints.endpoints}
        if found - {NOTHING}:
            self.guarding[cluster.name] = frozenset(found - {NOTHING})
        reasons = dict.fromkeys(why for _, whys in found for why in whys)
        yield from sorted(reasons)
        rules = {one for one, _ in found}
        if len(rules) > 1 and not reasons:
            yield f"authorization policies: they differ among the endpoints of cluster {cluster.name}"
        if len(rules) == 1 and not reasons:
            (self._rules[cluster.name],) = rules

    def guards(self, name: str) -> Rules:
        """The rules that guard each endpoint of a cluster; none where there is a reason against it."""
        self.reasons(name)
        return self._rules.get(name, ())


def _transport(cluster: Cluster, endpoint: HttpEndpoint) -> str:
    """The name of the transport that an endpoint is spoken to by; "" for plaintext."""
    labels = set(endpoint.labels)
    for transport in cluster.transports:
        if labels.issuperset(transport.labels):
            return "" if transport.plaintext else transport.name
    return ""
