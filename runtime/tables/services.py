# SPDX-License-Identifier: Apache-2.0
"""The service tables: updates in, map operations out.

A *frontend* is a service's address, port and protocol; it points at a *cluster*, the endpoints of
one port and address family, which stand in numbered *slots*. Operations come in six steps: slots,
clusters, frontends written; then frontends, clusters, slots removed. So nothing ever points at what
is not there yet, or not any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

from runtime.model.mesh import BalancingMode, Service, ServicePort, Workload
from runtime.source.update import Rejection, Update
from runtime.tables.clusters import Cluster, Clusters
from runtime.tables.direct import DirectWaypoints
from runtime.tables.endpoints import cluster_id, family, frontend_key, is_port
from runtime.tables.frontends import Frontends
from runtime.tables.frontends import Target as Stands
from runtime.tables.identities import Identities
from runtime.tables.layout import MAPS
from runtime.tables.membership import Membership
from runtime.tables.networks import OtherNetworks
from runtime.tables.ops import Contents, Op
from runtime.tables.place import Place
from runtime.tables.problems import Problems
from runtime.tables.waypoints import FLAG as WAYPOINT
from runtime.tables.waypoints import Target, Waypoints, goes_to_waypoint

LIMITS: Mapping[str, int] = MappingProxyType(
    {name: MAPS[name].max_entries for name in ("frontends", "clusters", "slots")}
)


@dataclass(slots=True)
class _ServiceState:
    service: Service
    clusters: dict[int, Cluster] = field(default_factory=dict)


class ServiceTables:
    """What is in the service tables, and how to bring it to what a source says.

    Args:
        place: where this node is, for locality and networks.
        existing: what an earlier process left in the kernel. It keeps serving until the first
            complete update; then only the difference is written.
        limits: how many elements each map holds.
    """

    def __init__(
        self,
        *,
        place: Place | None = None,
        existing: Contents | None = None,
        limits: Mapping[str, int] = LIMITS,
    ) -> None:
        self._place = place or Place()
        self._limits = dict(limits)
        self._start_over(existing or Contents())

    def _start_over(self, existing: Contents) -> None:
        """Take what is in the kernel for the state from which differences are counted."""
        self._services: dict[str, _ServiceState] = {}
        self._problems = Problems()
        self._waiting: set[str] = set()  # services with a port that did not fit
        self._clusters = Clusters(existing, limits=self._limits, problems=self._problems)
        self._members = Membership(self, self._clusters, place=self._place, problems=self._problems)
        self._frontends = Frontends(
            existing.frontends,
            limit=self._limits["frontends"],
            problems=self._problems,
            precedence=self._precedence,
        )
        self._waypoints = Waypoints(self._clusters, fill=self._members.fill)
        self._direct = DirectWaypoints(
            waypoints=self._waypoints,
            frontends=self._frontends,
            service=self.service,
            place=self._place,
            problems=self._problems,
        )
        self._networks = OtherNetworks(place=self._place, problems=self._problems)
        self._identities = Identities(
            existing.source_tlvs,
            place=self._place,
            limit=MAPS["source_tlvs"].max_entries,
            problems=self._problems,
        )
        self._is_adopting = True

    def _precedence(self, key: str) -> tuple[bool, str]:
        """Who gets a frontend that several claim: services before workloads."""
        state = self._services.get(key)
        if state is None:
            return True, f"\U0010ffff{key}"
        return not state.service.canonical, key

    # What others may ask.

    @property
    def problems(self) -> tuple[Rejection, ...]:
        """What could not be done, and for which resource; everything else works."""
        return self._problems.listed()

    @property
    def services(self) -> Mapping[str, Service]:
        return {key: state.service for key, state in self._services.items()}

    @property
    def workloads(self) -> Mapping[str, Workload]:
        return self._members.workloads

    @property
    def used(self) -> Mapping[str, int]:
        """How many elements each map holds."""
        return {
            "frontends": len(self._frontends),
            "clusters": self._clusters.count,
            "slots": self._clusters.slots,
        }

    # Updates.

    def apply(self, update: Update) -> list[Op]:
        """Take in an update.

        Args:
            update: changed and removed resources, or the whole picture.

        Returns:
            the operations that bring the maps there, to be carried out in this order. An update
            that changes nothing gives none.
        """
        services = {service.key: service for service in update.services}
        workloads = {workload.uid: workload for workload in update.workloads}
        whole = update.complete
        for key in (set(self._services) if whole else set(update.removed_services)) - set(services):
            self._remove_service(key)
        gone = set(self.workloads) if whole else set(update.removed_workloads)
        for uid in gone - set(workloads):
            self._set_workload(uid, None)
        for key, service in services.items():
            self._set_service(key, service)
        for uid, workload in workloads.items():
            self._set_workload(uid, workload)
        if whole and self._is_adopting:
            self._clusters.drop_orphans()
            self._frontends.touch_unclaimed()
            self._identities.drop_unclaimed()
            self._is_adopting = False
        return self._flush() + self._place_leftovers()

    def relocate(self, place: Place) -> None:
        """This node turns out to be elsewhere; the next `apply` brings the maps there."""
        self._place = place
        self._members.relocate(place)
        self._direct.relocate(place)
        self._networks.relocate(place, self.workloads.values())
        for key, state in self._services.items():
            self._shape(key, state)
            for cluster in self.clusters_of(key):
                self._members.fill(cluster)

    def resync(self, existing: Contents) -> list[Op]:
        """Count differences from what really is in the kernel, after operations that failed."""
        services, workloads = self.services, self.workloads
        self._start_over(existing)
        whole = Update(
            services=tuple(services.values()), workloads=tuple(workloads.values()), complete=True
        )
        return self.apply(whole)

    def _flush(self) -> list[Op]:
        self._networks.flush()
        steps = self._clusters.flush()
        written, removed = self._frontends.flush()
        order = (self._identities.flush(), steps.slots, steps.clusters, written, removed)
        return list(chain(*order, steps.clusters_gone, steps.slots_gone))

    def _place_leftovers(self) -> list[Op]:
        """What did not fit gets the room that this update made."""
        waiting = self._waiting | self._frontends.waiting | self._direct.waiting
        if waiting and not self._clusters.is_full and not self._frontends.is_full:
            self._waiting, self._frontends.waiting = set(), set()
            self._shape_all(waiting)
        for cluster, _uids in list(self._clusters.unplaced.values()):
            if not self._clusters.no_slot_left:
                self._members.fill(cluster)
        return self._flush()

    # Services.

    def _set_service(self, key: str, service: Service) -> None:
        state = self._services.get(key)
        before = state.service if state else None
        if before == service:
            return
        if state is None:
            state = self._services[key] = _ServiceState(service)
        state.service = service
        again = self._waypoints.set_addresses(key, before, service)
        self._shape(key, state)
        if before is None or before.load_balancing != service.load_balancing:
            for cluster in self.clusters_of(key):
                self._members.fill(cluster)
        if before is None or before.ports != service.ports:
            self._direct.service_changed(key)
        self._shape_all(again)

    def _remove_service(self, key: str) -> None:
        state = self._services.get(key)
        if state is None:
            return
        self._frontends.set(key, {})
        for cluster in state.clusters.values():
            self._clusters.retire(cluster)
        again = self._waypoints.set_addresses(key, state.service, None)
        self._waypoints.wanted(key, (), ())
        self._waypoints.use(key, ())
        del self._services[key]
        self._direct.service_changed(key)
        self._problems.clear_all(key)
        for cluster in self._waypoints.clusters_of(key):
            self._members.fill(cluster)
        self._shape_all(again)

    def _shape_all(self, keys: Collection[str]) -> None:
        for key in sorted(set(keys) & self._services.keys()):
            self._shape(key, self._services[key])
        self._direct.shape(keys)

    def _shape(self, key: str, state: _ServiceState) -> None:
        """Bring a service's clusters and frontends to its ports and addresses."""
        self._problems.clear_all(key, but="frontend")
        wanted = {
            cluster_id(key, port, version): (port, version)
            for port, version in self._ports(key, state.service)
        }
        for number in state.clusters.keys() - wanted.keys():
            self._clusters.retire(state.clusters.pop(number))
        for number, (port, version) in wanted.items():
            self._shape_cluster(key, state, number, port=port, version=version)
        addresses = [one.address for one in state.service.addresses]
        through = self._waypoints.wanted(key, state.service.waypoints, addresses)
        if not self._waypoints.use(key, through.values()):
            self._waiting.add(key)
        self._frontends.set(key, dict(self._wanted_frontends(key, state, through)))

    def service(self, key: str) -> Service | None:
        state = self._services.get(key)
        return state.service if state else None

    def clusters_of(self, key: str) -> Iterable[Cluster]:
        """The clusters that take their endpoints from a service's workloads."""
        state = self._services.get(key)
        own = state.clusters.values() if state else ()
        through = self._waypoints.clusters_of(key)
        return (*own, *through) if through else own

    def _set_workload(self, uid: str, workload: Workload | None) -> None:
        before = self.workloads.get(uid)
        if before != workload:
            self._identities.move(uid, before, workload)
            self._networks.move(before, workload)
            self._members.set(uid, workload)
            self._direct.set(uid, workload)

    def _shape_cluster(
        self, key: str, state: _ServiceState, number: int, *, port: ServicePort, version: int
    ) -> None:
        cluster = state.clusters.get(number)
        if cluster and cluster.port == port:
            return
        if cluster is None:
            cluster = self._clusters.open(number, service=key, port=port, version=version)
            if cluster is None:
                self._waiting.add(key)
                return
            state.clusters[number] = cluster
        cluster.port = port
        self._members.fill(cluster)

    def _ports(self, key: str, service: Service) -> Iterator[tuple[ServicePort, int]]:
        """Each port with each address family in which it is reached."""
        if service.load_balancing.mode is BalancingMode.PASSTHROUGH:
            return
        versions = sorted({family(one.address) for one in service.addresses})
        for port in service.ports:
            if is_port(port.service_port):
                yield from ((port, version) for version in versions)
            else:
                number = port.service_port
                self._problems.add(key, f"port {number}", f"{number} is no port number")

    def _wanted_frontends(
        self, key: str, state: _ServiceState, through: Mapping[int, Target]
    ) -> Iterator[tuple[bytes, Stands | None]]:
        served = {cluster_id(key, *each) for each in self._ports(key, state.service)}
        for one in state.service.addresses:
            if self._place.network is not None and one.network != self._place.network:
                continue
            if one.address.is_unspecified or one.address.is_multicast:
                reason = f"address {one.address} cannot be connected to"
                self._problems.add(key, f"address {one.address}", reason)
                continue
            for port in state.service.ports:
                version = family(one.address)
                number = cluster_id(key, port, version)
                if number not in served:
                    continue
                if number not in state.clusters:
                    # There was no room for it: its address is still nobody else's.
                    yield frontend_key(one.address, port), None
                elif version in through and goes_to_waypoint(port):
                    yield frontend_key(one.address, port), (through[version].id, WAYPOINT)
                else:
                    yield frontend_key(one.address, port), (number, 0)
