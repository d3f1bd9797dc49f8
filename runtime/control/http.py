# SPDX-License-Identifier: Apache-2.0
"""HTTP into the kernel: what is known is planned, and the plan becomes tables, clusters and ports.

Order matters: endpoints are there before a table leads to them, a table before a port points at it; and
each goes only when nothing leads to it any more. What cannot be brought in keeps its last good state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from runtime.control.http_standing import Standings
from runtime.control.http_tables import TableWriter, Where, key_of
from runtime.control.http_unserved import Unserved
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.kernel.http_ports import HttpPorts
from runtime.model.http import Balancer, Cluster, Endpoints
from runtime.model.http_picture import HttpPicture
from runtime.model.mesh import Protocol
from runtime.plan.ability import Ability
from runtime.plan.guards import Guarding
from runtime.plan.kernel_table import kernel_table
from runtime.plan.planned import Plan, PlannedPort
from runtime.plan.planner import make_plan
from runtime.source.update import Update
from runtime.tables.http_govern import NO_BOUND, Governed, govern
from runtime.tables.http_ports import Target

_HASHING = (Balancer.RING_HASH, Balancer.MAGLEV)
_CONNECT_MS = 5000  # GATE_DIAL_MS: no row is needed to say so


class HttpControl:
    """Keeps the routes in the kernel in step with the view; for one thread at a time.

    Args:
        ports: the maps.
        ability: what the path can do.
        has_waypoint: tells whether this node has a waypoint for whatever takes one.
    """

    def __init__(
        self,
        ports: HttpPorts,
        *,
        ability: Ability,
        has_waypoint: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ports = ports
        self.ability = ability
        self._has_waypoint = has_waypoint
        self._tables = TableWriter(ports)
        self._unserved = Unserved()
        self._endpoints: dict[str, tuple[Endpoints | None, Cluster | None]] = {}
        self._by_gate: set[str] = set()
        self.is_behind = False  # something may go in at another attempt
        self._failed: Mapping[str, str] = {}

    def program(self, update: Update, view: View) -> Mapping[str, str]:
        """Bring in what an update changes.

        Args:
            update: what has come.
            view: the picture with it.

        Returns:
            what is not as it should be in the kernel, by resource, with the reason.
        """
        if view.http is None or not view.http.known or not self._concerns(update, view):
            return self._failed
        plan = make_plan(
            view.http,
            ability=self.ability,
            services=view.services,
            workloads=view.workloads,
            policies=view.policies,
            at_waypoints=view.at_waypoints,
        )
        self._failed = self._bring(view.http, dict(_places(plan, view)), plan.guarding)
        return self._failed

    @property
    def standings(self) -> Standings:
        """What became of each table that is planned; another thread may ask."""
        return self._tables.standings

    def _concerns(self, update: Update, view: View) -> bool:
        """Whether the routes, or where they hold, may be others now."""
        if self.is_behind or update.complete or update.http is not None:
            return True
        if update.services or update.removed_services:
            return True
        if update.policies or update.removed_policies or update.at_waypoints is not None:
            return True
        workloads = bool(update.workloads or update.removed_workloads)
        return workloads and any(policy.judges_requests for policy in view.policies.values())

    def _bring(
        self,
        http: HttpPicture,
        places: Mapping[Where, PlannedPort],
        guarding: Mapping[str, Guarding],
    ) -> Mapping[str, str]:
        failed: dict[str, str] = {}
        self.is_behind = False
        tables = {
            key: self._tables.table_of(key, planned) or kernel_table(planned)
            for key, planned in {key_of(one): one for one in places.values()}.items()
        }
        clusters = {name for table in tables.values() for name in table.clusters}
        # What guards new endpoints is not in the tables that still lead to their cluster.
        wary = self._tables.guarded_otherwise(tables, guarding) & clusters
        self._set_clusters(clusters, http, failed, wary=wary)
        try:
            self._tables.bring(tables, places, self._by_gate, failed, guarding=guarding)
            if not self._tables.lags:
                self._set_clusters(wary, http, failed)
            self.is_behind |= self._tables.is_behind
            # A table that could not be replaced still leads to the clusters that it led to.
            if not self._tables.leaves:
                self._ports.keep_clusters(clusters | self._tables.clusters)
        except KmeshError as error:
            self._fail(failed, "HTTP routes", f"cannot remove what is gone: {error}")
        without = () if self._has_waypoint() else self._tables.without_waypoint
        self._unserved.tell(self._tables.standings, without)
        self._endpoints = {n: e for n, e in self._endpoints.items() if n in clusters}
        self._by_gate &= clusters
        return failed

    def _fail(self, failed: dict[str, str], resource: str, reason: str) -> None:
        failed[resource] = reason
        self.is_behind = True

    def _set_clusters(
        self,
        names: Iterable[str],
        http: HttpPicture,
        failed: dict[str, str],
        *,
        wary: Collection[str] = (),
    ) -> None:
        """Give clusters their endpoints; the wary ones only those that they have already."""
        for name in names:
            cluster = http.clusters.get(name)
            every = http.endpoints_of(cluster) if cluster else None
            held = self._endpoints.get(name)
            endpoints = _of_both(held[0], every) if held and name in wary else every
            if held is not None and held[0] == endpoints and held[1] == cluster:
                continue
            try:
                unhashed = self._set_cluster(name, cluster, endpoints, every)
                if unhashed:
                    self._fail(failed, f"cluster {name}", unhashed)
                else:
                    self._endpoints[name] = endpoints, cluster
            except KmeshError as error:
                self._fail(failed, f"cluster {name}", str(error))

    def _set_cluster(
        self,
        name: str,
        cluster: Cluster | None,
        endpoints: Endpoints | None,
        every: Endpoints | None,
    ) -> str:
        """What is not as it should be, though the cluster has its endpoints; `every`: those that it is to have."""
        governed, targets = _choice(cluster, endpoints)
        hashes = cluster is not None and cluster.balancer in _HASHING
        unhashed = self._ports.set_cluster(
            name,
            targets,
            balancer=cluster.balancer if cluster else Balancer.ROUND_ROBIN,
            hashes=hashes,
            governed=governed,
            connect_ms=_connect_ms(cluster),
        )
        # Tables are made for all of them.
        if endpoints is not every:
            governed, targets = _choice(cluster, every)
        if governed or not targets:
            self._by_gate.add(name)
        else:
            self._by_gate.discard(name)
        return unhashed


def _choice(
    cluster: Cluster | None, endpoints: Endpoints | None
) -> tuple[Governed | None, list[Target]]:
    """What the gate does for a cluster, and among whom one is chosen."""
    governed = govern(cluster, endpoints) if cluster and endpoints else None
    return governed, _targets(endpoints, all_of_them=governed is not None)


def _of_both(before: Endpoints | None, now: Endpoints | None) -> Endpoints | None:
    """Those of now that were there before."""
    if before is None or now is None:
        return None
    there = {(one.address, one.port) for one in before.endpoints}
    kept = tuple(one for one in now.endpoints if (one.address, one.port) in there)
    return replace(now, endpoints=kept)


def _connect_ms(cluster: Cluster | None) -> int:
    if cluster is None or cluster.connect_timeout_ms == _CONNECT_MS:
        return 0
    return min(cluster.connect_timeout_ms, NO_BOUND)


def _targets(endpoints: Endpoints | None, *, all_of_them: bool) -> list[Target]:
    usable = endpoints.endpoints if endpoints else ()
    return [
        Target(one.address, one.port, one.weight) for one in usable if one.healthy or all_of_them
    ]


def _places(plan: Plan, view: View) -> Iterator[tuple[Where, PlannedPort]]:
    """Every address and port of this node's services that has routes, and those of listeners' own."""
    for (address, port), planned in plan.ports.items():
        if address is not None:
            yield (address, port), planned
    for service in view.services.values():
        numbers = {p.service_port for p in service.ports if p.protocol is Protocol.TCP}
        for at in service.addresses:
            for number in numbers:
                found = plan.port_of(at, number)
                if found is not None:
                    yield (at.address, number), found
