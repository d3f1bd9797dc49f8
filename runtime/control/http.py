# SPDX-License-Identifier: Apache-2.0
"""HTTP into the kernel: what is known is planned, and the plan becomes tables, clusters and ports.

Order matters: endpoints are there before a table leads to them, a table before a port points at it; and
each goes only when nothing leads to it any more. What cannot be brought in keeps its last good state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from runtime import log
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.kernel.http_ports import HttpPorts, Written
from runtime.model.http import Balancer, Cluster, Endpoints
from runtime.model.http_picture import HttpPicture
from runtime.model.mesh import IPAddress, Protocol
from runtime.plan.ability import Ability
from runtime.plan.kernel_table import KernelTable, kernel_table, unroutable
from runtime.plan.planned import Plan, PlannedPort
from runtime.plan.planner import make_plan
from runtime.source.update import Update
from runtime.tables.http_govern import NO_BOUND, govern
from runtime.tables.http_ports import Target
from runtime.tables.http_routes import TableTooLargeError

_log = log.get("control")
_PortKey = tuple[str, str]  # of the listener and its table
_Where = tuple[IPAddress, int]
_HASHING = (Balancer.RING_HASH, Balancer.MAGLEV)
_CONNECT_MS = 5000  # GATE_DIAL_MS: no row is needed to say so


@dataclass(frozen=True, slots=True)
class _Held:
    """A table in the kernel, and what it was made of."""

    planned: PlannedPort
    table: KernelTable
    by_gate: frozenset[str]  # clusters among whose endpoints the kernel cannot choose
    written: Written


class HttpControl:
    """Keeps the routes in the kernel in step with the view; for one thread at a time.

    Args:
        ports: the maps.
        ability: what the path can do.
    """

    def __init__(self, ports: HttpPorts, *, ability: Ability) -> None:
        self._ports = ports
        self.ability = ability
        self._held: dict[_PortKey, _Held] = {}
        self._endpoints: dict[str, tuple[Endpoints | None, Cluster | None]] = {}
        self._by_gate: set[str] = set()
        self.is_behind = False  # something may go in at another attempt

    def program(self, update: Update, view: View) -> Mapping[str, str]:
        """Bring in what an update changes.

        Args:
            update: what has come.
            view: the picture with it.

        Returns:
            what is not as it should be in the kernel, by resource, with the reason.
        """
        if view.http is None or not view.http.known or not self._concerns(update, view):
            return {}
        plan = make_plan(
            view.http,
            ability=self.ability,
            services=view.services,
            workloads=view.workloads,
            policies=view.policies,
        )
        return self._bring(view.http, dict(_places(plan, view)))

    def _concerns(self, update: Update, view: View) -> bool:
        """Whether the routes, or where they hold, may be others now."""
        if self.is_behind or update.complete or update.http is not None:
            return True
        if update.services or update.removed_services:
            return True
        if update.policies or update.removed_policies:
            return True
        workloads = bool(update.workloads or update.removed_workloads)
        return workloads and any(policy.needs_http for policy in view.policies.values())

    def _bring(self, http: HttpPicture, places: Mapping[_Where, PlannedPort]) -> Mapping[str, str]:
        failed: dict[str, str] = {}
        self.is_behind = False
        tables = {
            key: self._table(key, planned)
            for key, planned in {_key(one): one for one in places.values()}.items()
        }
        clusters = {name for table in tables.values() for name in table.clusters}
        self._set_clusters(clusters, http, failed)
        written = self._write(tables, places, failed)
        failed.update({**dict(_undecided(self._held.values())), **failed})
        kept = set(self._point(places, tables, written, failed))
        try:
            self._ports.keep_ports(kept)
            self._ports.sweep()
            # A table that could not be replaced still leads to the clusters that it led to.
            self._ports.keep_clusters(
                clusters.union(*(one.table.clusters for one in self._held.values()))
            )
        except KmeshError as error:
            self._fail(failed, "HTTP routes", f"cannot remove what is gone: {error}")
        self._endpoints = {n: e for n, e in self._endpoints.items() if n in clusters}
        self._by_gate &= clusters
        return failed

    def _fail(self, failed: dict[str, str], resource: str, reason: str) -> None:
        failed[resource] = reason
        self.is_behind = True

    def _table(self, key: _PortKey, planned: PlannedPort) -> KernelTable:
        held = self._held.get(key)
        return held.table if held and held.planned == planned else kernel_table(planned)

    def _set_clusters(
        self, names: Iterable[str], http: HttpPicture, failed: dict[str, str]
    ) -> None:
        for name in names:
            cluster = http.clusters.get(name)
            endpoints = http.endpoints_of(cluster) if cluster else None
            held = self._endpoints.get(name)
            if held is not None and held[0] == endpoints and held[1] == cluster:
                continue
            try:
                self._set_cluster(name, cluster, endpoints)
                self._endpoints[name] = endpoints, cluster
            except KmeshError as error:
                self._fail(failed, f"cluster {name}", str(error))

    def _set_cluster(self, name: str, cluster: Cluster | None, endpoints: Endpoints | None) -> None:
        governed = govern(cluster, endpoints) if cluster and endpoints else None
        targets = _targets(endpoints, all_of_them=governed is not None)
        hashes = cluster is not None and cluster.balancer in _HASHING
        self._ports.set_cluster(
            name,
            targets,
            hashes=hashes,
            governed=governed,
            connect_ms=_connect_ms(cluster),
        )
        if governed or not targets:
            self._by_gate.add(name)
        else:
            self._by_gate.discard(name)

    def _write(
        self,
        tables: Mapping[_PortKey, KernelTable],
        places: Mapping[_Where, PlannedPort],
        failed: dict[str, str],
    ) -> dict[_PortKey, Written]:
        """What each table is in the kernel; of one that does not go in, what it was."""
        planned = {_key(one): one for one in places.values()}
        done: dict[_PortKey, Written] = {}
        before, self._held = self._held, {}
        for key, table in tables.items():
            held = before.get(key)
            by_gate = table.clusters & self._by_gate
            if held is None or held.table is not table or held.by_gate != by_gate:
                held = self._write_one(planned[key], table, by_gate, failed) or held
            if held is not None:
                self._held[key] = held
                done[key] = held.written
        return done

    def _write_one(
        self,
        planned: PlannedPort,
        table: KernelTable,
        by_gate: frozenset[str],
        failed: dict[str, str],
    ) -> _Held | None:
        name = f"route table {planned.port.table}"
        try:
            try:
                written = self._put(table, by_gate)
            except TableTooLargeError as error:
                failed[name] = f"{error}: all of it is the waypoint's"
                written = self._put(unroutable(planned, str(error)), by_gate)
        except KmeshError as error:
            self._fail(failed, name, f"{error}; what it said before keeps serving")
            return None
        return _Held(planned, table, by_gate, written)

    def _put(self, table: KernelTable, by_gate: frozenset[str]) -> Written:
        return self._ports.write(table.table, governs=table.port, gate_chooses=by_gate)

    def _point(
        self,
        places: Mapping[_Where, PlannedPort],
        tables: Mapping[_PortKey, KernelTable],
        written: Mapping[_PortKey, Written],
        failed: dict[str, str],
    ) -> Iterator[bytes]:
        """Point the ports at their tables; the keys of all that have one."""
        for (address, port), planned in places.items():
            key = _key(planned)
            found = written.get(key)
            if found is None:
                # Never was in the kernel, or not since this daemon runs: leave what is there.
                yield self._ports.key_of(address, port)
                continue
            needed = found.waypoint or found.undecided
            waypoint = self._ports.waypoint_of(address, port) if needed else 0
            if waypoint and tables[key].is_all_waypoint:
                continue  # the kernel leads the whole connection there
            try:
                yield self._ports.point(address, port, found, waypoint=waypoint)
            except KmeshError as error:
                self._fail(failed, f"HTTP port {address}:{port}", str(error))


def _key(planned: PlannedPort) -> _PortKey:
    return planned.port.listener, planned.port.table


def _undecided(held: Iterable[_Held]) -> Iterator[tuple[str, str]]:
    """Of which routes some requests are the waypoint's, by their tables."""
    for one in held:
        routes = one.written.undecided
        if routes:
            number, why = min(routes.items())
            told = f"some requests of {len(routes)} routes (the first is number {number + 1}) are the waypoint's: {why}"
            yield f"route table {one.planned.port.table}", told


def _connect_ms(cluster: Cluster | None) -> int:
    if cluster is None or cluster.connect_timeout_ms == _CONNECT_MS:
        return 0
    return min(cluster.connect_timeout_ms, NO_BOUND)


def _targets(endpoints: Endpoints | None, *, all_of_them: bool) -> list[Target]:
    usable = endpoints.endpoints if endpoints else ()
    return [
        Target(one.address, one.port, one.weight) for one in usable if one.healthy or all_of_them
    ]


def _places(plan: Plan, view: View) -> Iterator[tuple[_Where, PlannedPort]]:
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
