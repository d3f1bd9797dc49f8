# SPDX-License-Identifier: Apache-2.0
"""Which workloads stand behind which cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Protocol

from runtime.model.mesh import Service, Workload
from runtime.tables.clusters import Cluster, Clusters, Part
from runtime.tables.endpoints import Candidate, candidate, family, fixed, workload_problem
from runtime.tables.place import Place
from runtime.tables.problems import Problems
from runtime.tables.shares import shares

# A workload, or a waypoint's user, may be told before the service.
_UNKNOWN = Service(name="", namespace="", hostname="")


class Catalogue(Protocol):
    """What is known of services."""

    def service(self, key: str) -> Service | None: ...
    def clusters_of(self, key: str) -> Iterable[Cluster]: ...


class Membership:
    """The workloads, and the service of each that a cluster takes its endpoints from.

    Args:
        catalogue: the services and their clusters.
        clusters: where endpoints are given slots.
        place: this node.
        problems: where what cannot be served is reported.
    """

    def __init__(
        self, catalogue: Catalogue, clusters: Clusters, *, place: Place, problems: Problems
    ) -> None:
        self._catalogue = catalogue
        self._clusters = clusters
        self._place = place
        self._problems = problems
        self._workloads: dict[str, Workload] = {}
        self._serving: dict[str, dict[str, None]] = {}  # service key -> uids

    @property
    def workloads(self) -> Mapping[str, Workload]:
        return MappingProxyType(self._workloads)

    def relocate(self, place: Place) -> None:
        """This node turns out to be elsewhere; its caller fills the clusters again."""
        self._place = place

    def set(self, uid: str, workload: Workload | None) -> None:
        """Take in a workload that is not what it was; None when it is gone."""
        before = self._workloads.get(uid)
        self._problems.clear(uid, "workload")
        if workload is None:
            del self._workloads[uid]
        else:
            self._workloads[uid] = workload
            reason = workload_problem(workload)
            if reason:
                self._problems.add(uid, "workload", reason)
        old = before.services if before else {}
        new = workload.services if workload else {}
        keys = dict.fromkeys(chain(old, new))
        for key in keys:
            self._index(key, uid, serves=key in new)
        # Only then: a cluster of several waypoints looks at the workloads of all of them.
        for key in keys:
            for cluster in self._catalogue.clusters_of(key):
                self._move(cluster, uid, before=before, after=workload)

    def _index(self, key: str, uid: str, *, serves: bool) -> None:
        uids = self._serving.setdefault(key, {})
        if serves:
            uids[uid] = None
        else:
            uids.pop(uid, None)
        if not uids:
            del self._serving[key]

    def _candidate(self, cluster: Cluster, workload: Workload | None) -> Candidate | None:
        """A workload as an endpoint of a cluster; it is none of a service that it does not serve."""
        if workload is None or cluster.service not in workload.services:
            return None
        return candidate(
            self._catalogue.service(cluster.service) or _UNKNOWN,
            cluster.service,
            cluster.port,
            cluster.version,
            workload=workload,
            place=self._place,
            as_waypoint=bool(cluster.parts),
        )

    def _found(self, cluster: Cluster) -> Mapping[str, Candidate | None]:
        """Everyone who may be an endpoint of a cluster."""
        if len(cluster.parts) > 1:
            return self._blend(cluster)
        if cluster.parts and cluster.parts[0].address is not None:
            return self._instances(cluster.parts[0], cluster.version)
        return {
            uid: self._candidate(cluster, self._workloads[uid])
            for uid in self._serving.get(cluster.service, ())
        }

    def _instances(self, part: Part, version: int) -> dict[str, Candidate]:
        """The nearest instances of a waypoint."""
        if part.address is not None:
            there = family(part.address.address) == version
            if not there:
                return {}
            return {part.owner: fixed(part.address.address, part.port, place=self._place)}
        service = self._catalogue.service(part.owner) or _UNKNOWN
        found = {
            uid: candidate(
                service,
                part.owner,
                part.port,
                version,
                workload=self._workloads[uid],
                place=self._place,
                as_waypoint=True,
            )
            for uid in self._serving.get(part.owner, ())
        }
        nearest = max((one.rank for one in found.values() if one), default=0)
        return {uid: one for uid, one in found.items() if one and one.rank == nearest}

    def _blend(self, cluster: Cluster) -> dict[str, Candidate]:
        """The instances of all of a cluster's waypoints, each with its part of its waypoint's share."""
        groups = [self._instances(part, cluster.version) for part in cluster.parts]
        weights = shares(
            [
                (part.weight, [one.weight for one in group.values()])
                for part, group in zip(cluster.parts, groups, strict=True)
            ]
        )
        found: dict[str, Candidate] = {}
        for part, group, weighing in zip(cluster.parts, groups, weights, strict=True):
            for (uid, one), weight in zip(group.items(), weighing, strict=True):
                name = uid if uid not in found else f"{uid} as {part}"
                if weight:
                    found[name] = one.weighing(weight)
        return found

    def _move(
        self, cluster: Cluster, uid: str, *, before: Workload | None, after: Workload | None
    ) -> None:
        """One workload changed in one cluster: nearly always a matter of one slot."""
        if len(cluster.parts) > 1:
            self.fill(cluster)  # the others' weights depend on it
            return
        was = self._candidate(cluster, before)
        now = self._candidate(cluster, after)
        if was == now:
            return
        if cluster.rank(was, now):
            self.fill(cluster)
        else:
            near = now if now and now.rank == cluster.nearest else None
            self._clusters.set_slot(cluster, uid, near)

    def fill(self, cluster: Cluster) -> None:
        """Bring a cluster to all of its service's workloads; endpoints that stay do not move."""
        found = self._found(cluster)
        cluster.rank_again(Counter(one.rank for one in found.values() if one))
        nearest = cluster.nearest
        near = {uid: one for uid, one in found.items() if one and one.rank == nearest}
        self._clusters.forget_unplaced(cluster)
        for owner in cluster.slots.owners():
            if owner not in near:
                self._clusters.set_slot(cluster, owner, None)
        for uid, one in near.items():
            self._clusters.set_slot(cluster, uid, one)
