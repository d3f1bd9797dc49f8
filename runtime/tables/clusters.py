# SPDX-License-Identifier: Apache-2.0
"""Clusters: the endpoints of one port and address family of a service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from runtime.model.mesh import NetworkAddress, ServicePort
from runtime.tables.endpoints import Candidate
from runtime.tables.layout import Cluster as ClusterValue
from runtime.tables.layout import ClusterKey, SlotKey
from runtime.tables.ops import Contents, Op
from runtime.tables.problems import Problems
from runtime.tables.slots import Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A waypoint, and its weight among several.

    Attributes:
        owner: the key of the waypoint's service; its address where no service has that.
        address: the address where no service has it, None otherwise.
    """

    owner: str
    port: ServicePort
    weight: int = 1
    address: NetworkAddress | None = None

    def __str__(self) -> str:
        return f"{self.owner}:{self.port.service_port}"


@dataclass(slots=True)
class Cluster:
    """One port and family of a service, or with `parts` the waypoints that stand before some.

    `ranks` counts its endpoints by how near they are; only the nearest, of rank `nearest`, have
    slots.
    """

    id: int
    service: str
    port: ServicePort
    version: int
    slots: Slots
    installed: bytes | None = None  # the value in the kernel
    ranks: Counter[int] = field(default_factory=Counter)
    nearest: int = 0
    parts: tuple[Part, ...] = ()

    def rank(self, was: Candidate | None, now: Candidate | None) -> bool:
        """Count a change of one endpoint; True when others are the nearest now."""
        before = self.nearest
        if was:
            self.ranks[was.rank] -= 1
        if now:
            self.ranks[now.rank] += 1
        if (now and now.rank > before) or not self.ranks[before]:
            self.rank_again(self.ranks)
        return self.nearest != before

    def rank_again(self, ranks: Counter[int]) -> None:
        self.ranks = ranks
        self.nearest = max((rank for rank, size in ranks.items() if size), default=0)

    @property
    def key(self) -> bytes:
        return ClusterKey(self.id).pack()


@dataclass(slots=True)
class Steps:
    """Operations by the step in which they are to be carried out."""

    slots: list[Op] = field(default_factory=list)
    clusters: list[Op] = field(default_factory=list)
    clusters_gone: list[Op] = field(default_factory=list)
    slots_gone: list[Op] = field(default_factory=list)


class Clusters:
    """The clusters in the kernel, with their slots, and what of them changed.

    Args:
        existing: what the kernel holds; it stays until `drop_orphans`.
        limits: how many clusters and slots it can hold.
        problems: where lack of room is reported.
    """

    def __init__(
        self, existing: Contents, *, limits: Mapping[str, int], problems: Problems
    ) -> None:
        self._limits = limits
        self._problems = problems
        self._orphans = {cluster.id: cluster for cluster in _adopt(existing)}
        self._adopted: list[Cluster] = []
        self._touched: dict[int, Cluster] = {}
        self._gone: dict[int, Cluster] = {}
        self._growth = 0
        self.count = len(self._orphans)
        self.slots = len(existing.slots)
        self.unplaced: dict[int, tuple[Cluster, set[str]]] = {}

    @property
    def is_full(self) -> bool:
        return self.count >= self._limits["clusters"]

    @property
    def no_slot_left(self) -> bool:
        """Counted while both the old and the new slots of an update stand."""
        return self.slots + self._growth >= self._limits["slots"]

    def open(self, number: int, *, service: str, port: ServicePort, version: int) -> Cluster | None:
        """A cluster to be filled: a new one, or the one in the kernel; None when there is no room."""
        cluster = self._gone.pop(number, None)
        if cluster is None and number in self._orphans:
            cluster = self._orphans.pop(number)
            self._adopted.append(cluster)
        if cluster is None:
            if self.is_full:
                reason = f"does not fit: the table holds {self._limits['clusters']} service ports"
                self._problems.add(service, f"port {number}", f"port {port.service_port} {reason}")
                return None
            self.count += 1
            cluster = Cluster(number, service, port, version, Slots())
        cluster.service, cluster.port, cluster.version = service, port, version
        self._touched[number] = cluster
        return cluster

    def retire(self, cluster: Cluster) -> None:
        """Have the next flush remove a cluster and its slots."""
        before = cluster.slots.growth
        for owner in cluster.slots.owners():
            cluster.slots.drop(owner)
        cluster.slots.drop_orphans()
        self._growth += cluster.slots.growth - before
        cluster.rank_again(Counter())
        self.forget_unplaced(cluster)
        self._touched.pop(cluster.id, None)
        self._gone[cluster.id] = cluster

    def forget_unplaced(self, cluster: Cluster) -> None:
        for uid in self.unplaced.pop(cluster.id, (cluster, set()))[1]:
            self._problems.clear(uid, f"slot {cluster.id}")

    def set_slot(self, cluster: Cluster, uid: str, wanted: Candidate | None) -> None:
        """Give a workload a slot, change it, or take it away."""
        slots, before = cluster.slots, cluster.slots.growth
        self._touched[cluster.id] = cluster
        if cluster.id in self.unplaced:
            self.unplaced[cluster.id][1].discard(uid)
            self._problems.clear(uid, f"slot {cluster.id}")
        if wanted is None:
            slots.drop(uid)
        elif slots.would_grow(uid, wanted.packed, wanted.weight) and self.no_slot_left:
            slots.drop(uid)
            self._refuse(cluster, uid)
        else:
            slots.put(uid, wanted.packed, wanted.weight)
        self._growth += slots.growth - before

    def _refuse(self, cluster: Cluster, uid: str) -> None:
        self.unplaced.setdefault(cluster.id, (cluster, set()))[1].add(uid)
        what = f"{cluster.service} port {cluster.port.service_port}"
        reason = f"endpoint of {what} does not fit: the table holds {self._limits['slots']}"
        self._problems.add(uid, f"slot {cluster.id}", reason)

    def drop_orphans(self) -> None:
        """What was in the kernel and nobody has claimed goes with the next flush."""
        for cluster in self._orphans.values():
            self.retire(cluster)
        for cluster in self._adopted:
            if cluster.id in self._gone:
                continue
            before = cluster.slots.growth
            cluster.slots.drop_orphans()
            self._growth += cluster.slots.growth - before
            self._touched[cluster.id] = cluster
        self._orphans, self._adopted = {}, []

    def flush(self) -> Steps:
        """What to write and to remove."""
        steps = Steps()
        for cluster in chain(self._touched.values(), self._gone.values()):
            self._flush_slots(cluster, steps)
        for cluster in self._touched.values():
            value = cluster.slots.cluster().pack()
            if value != cluster.installed:
                cluster.installed = value
                steps.clusters.append(Op("clusters", cluster.key, value, cluster.service))
        for cluster in self._gone.values():
            self.count -= 1
            if cluster.installed is not None:
                steps.clusters_gone.append(Op("clusters", cluster.key, None, cluster.service))
        self._touched, self._gone, self._growth = {}, {}, 0
        return steps

    def _flush_slots(self, cluster: Cluster, steps: Steps) -> None:
        self.slots += cluster.slots.growth
        for slot, value in cluster.slots.flush():
            key = SlotKey(cluster.id, slot).pack()
            if value is None:
                self.slots -= 1
                steps.slots_gone.append(Op("slots", key, None, cluster.service))
            else:
                steps.slots.append(Op("slots", key, value, cluster.service))


def _adopt(existing: Contents) -> Iterator[Cluster]:
    """The clusters in the kernel, and those of which only slots are left."""
    by_cluster: dict[int, dict[int, bytes]] = {}
    for key, packed in existing.slots.items():
        where = SlotKey.unpack(key)
        by_cluster.setdefault(where.cluster, {})[where.slot] = packed
    installed = {ClusterKey.unpack(key).cluster: value for key, value in existing.clusters.items()}
    nothing = ServicePort(service_port=0)
    for number in {*by_cluster, *installed}:
        value = installed.get(number)
        counted = ClusterValue.unpack(value) if value else None
        slots = Slots.adopted(counted, by_cluster.get(number, {}))
        yield Cluster(number, "", nothing, 0, slots, installed=value)
