# SPDX-License-Identifier: Apache-2.0
"""Workloads with a waypoint of their own: connections to their own addresses go through it.

What is addressed to a service goes through that service's waypoint, or through none, whichever
workload is chosen for it. What is addressed to the workload itself goes through the workload's.
Only its known ports can: those on which the client of a service that it serves speaks first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from runtime.model.mesh import AppProtocol, NetworkMode, Service, ServicePort, Workload
from runtime.tables.endpoints import family, frontend_key, is_port
from runtime.tables.frontends import Frontends
from runtime.tables.frontends import Target as Stands
from runtime.tables.place import Place
from runtime.tables.problems import Problems
from runtime.tables.waypoints import FLAG, Waypoints, goes_to_waypoint

_TOPIC = "waypoint of its own"
FindService = Callable[[str], Service | None]


def own_ports(workload: Workload, service: FindService) -> Iterator[ServicePort]:
    """The ports on which a workload serves, with the protocol that it or its service tells."""
    for key, ports in workload.services.items():
        known = service(key)
        told = {(one.service_port, one.protocol): one for one in known.ports} if known else {}
        for port in ports:
            of_service = told.get((port.service_port, port.protocol), port)
            kind = port.app_protocol
            if kind is AppProtocol.UNKNOWN:
                kind = of_service.app_protocol
            number = port.target_port or of_service.target_port or port.service_port
            yield replace(port, service_port=number, target_port=0, app_protocol=kind)


class DirectWaypoints:
    """The frontends of workloads that have a waypoint.

    Args:
        waypoints: where the clusters of waypoints are.
        frontends: where the workloads' addresses and ports go.
        service: finds a service.
        place: this node; workloads of other networks have addresses that mean others here.
        problems: where what cannot go through a waypoint is reported.
    """

    def __init__(
        self,
        *,
        waypoints: Waypoints,
        frontends: Frontends,
        service: FindService,
        place: Place,
        problems: Problems,
    ) -> None:
        self._waypoints = waypoints
        self._frontends = frontends
        self._service = service
        self._place = place
        self._problems = problems
        self._workloads: dict[str, Workload] = {}  # those with a waypoint
        self._serving: dict[str, set[str]] = {}
        self.waiting: set[str] = set()  # those whose waypoint did not fit

    def set(self, uid: str, workload: Workload | None) -> None:
        """Take in a workload that is not what it was; None when it is gone."""
        before = self._workloads.pop(uid, None)
        after = workload if workload is not None and workload.waypoint is not None else None
        if before is None and after is None:
            return  # as nearly all of 100,000
        for key in before.services if before else ():
            self._serving[key].discard(uid)
            if not self._serving[key]:
                del self._serving[key]
        if after is not None:
            self._workloads[uid] = after
            for key in after.services:
                self._serving.setdefault(key, set()).add(uid)
        self._shape(uid)

    def service_changed(self, key: str) -> None:
        """A service's ports may tell other protocols now."""
        self.shape(self._serving.get(key, ()))

    def relocate(self, place: Place) -> None:
        """This node turns out to be elsewhere."""
        self._place = place
        self.shape(self._workloads)

    def shape(self, uids: Iterable[str]) -> None:
        """Bring the frontends of those workloads that have a waypoint to what they are now."""
        for uid in sorted(set(uids) & self._workloads.keys()):
            self._shape(uid)

    def _shape(self, uid: str) -> None:
        workload = self._workloads.get(uid)
        self._problems.clear(uid, _TOPIC)
        self.waiting.discard(uid)
        if workload is None or workload.waypoint is None or not self._is_ours(uid, workload):
            self._waypoints.wanted(uid, (), ())
            self._waypoints.use(uid, ())
            self._frontends.set(uid, {})
            return
        through = self._waypoints.wanted(uid, [workload.waypoint], workload.addresses)
        if not self._waypoints.use(uid, through.values()):
            self.waiting.add(uid)
        stands = {version: (target.id, FLAG) for version, target in through.items()}
        self._frontends.set(uid, dict(self._wanted(workload, stands)))

    def _is_ours(self, uid: str, workload: Workload) -> bool:
        if self._place.network is not None and workload.network != self._place.network:
            return False
        if workload.network_mode is NetworkMode.HOST_NETWORK:
            reason = "connections go past its waypoint: its address is its node's own"
            self._problems.add(uid, _TOPIC, reason)
            return False
        return True

    def _wanted(
        self, workload: Workload, stands: Mapping[int, Stands]
    ) -> Iterator[tuple[bytes, Stands | None]]:
        for port in own_ports(workload, self._service):
            if not (goes_to_waypoint(port) and is_port(port.service_port)):
                continue
            for address in workload.addresses:
                if family(address) in stands:
                    yield frontend_key(address, port), stands[family(address)]


def bypassing_directly(workload: Workload, service: FindService) -> tuple[int, ...]:
    """The TCP ports of a workload with a waypoint that go past it, as the server may speak first."""
    if workload.waypoint is None:
        return ()
    ports = [port for port in own_ports(workload, service) if port.protocol == "TCP"]
    through = {port.service_port for port in ports if goes_to_waypoint(port)}
    return tuple(sorted({port.service_port for port in ports} - through))
