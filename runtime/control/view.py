# SPDX-License-Identifier: Apache-2.0
"""What the controller knows: services, workloads, what was rejected, what failed, and since when.

Written by the controller alone. Readers in other threads take whole copies of the tables, so
they never see one change under their hands.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.model.mesh import Service, ServicePort, Workload
from runtime.model.policy import Policy
from runtime.model.waypoint_policies import AtWaypoints
from runtime.source.update import Update
from runtime.tables.direct import bypassing_directly
from runtime.tables.waypoints import bypassing

if TYPE_CHECKING:
    from runtime.model.http_picture import HttpPicture


@dataclass(slots=True)
class View:
    """The picture as of the last update.

    Attributes:
        details: gives what the source tells about itself (its connection, say).
        origins: gives where in the source each resource is from, as far as that is known.
        at_waypoints: policies that are not among these, as they are waypoints' alone.
        http: the HTTP that is known; None until there is any.
        rejected: resource → why the source could not accept it; its last good version serves.
        failed: resource → why the data path could not take it.
        synced: when the first whole picture was in the kernel, seconds since the epoch.
        trouble: why the kernel may lag behind the source now; "" when it does not.
        on_update: is told of every update, in the controller's thread.
    """

    source: str = ""
    details: Callable[[], Mapping[str, Any]] = dict
    origins: Callable[[], Mapping[str, str]] = dict
    services: dict[str, Service] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    at_waypoints: AtWaypoints = field(default_factory=AtWaypoints)
    http: HttpPicture | None = None
    rejected: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    updates: int = 0
    updated: float | None = None
    synced: float | None = None
    trouble: str = ""
    on_update: Callable[[Update], object] = lambda _update: None

    def take(self, update: Update) -> None:
        """Record what an update says (what it does to the kernel is recorded apart)."""
        if update.complete:
            self.services, self.workloads, self.policies = {}, {}, {}
        for key in update.removed_services:
            self.services.pop(key, None)
        for uid in update.removed_workloads:
            self.workloads.pop(uid, None)
        for key in update.removed_policies:
            self.policies.pop(key, None)
        self.services.update({service.key: service for service in update.services})
        self.policies.update({policy.key: policy for policy in update.policies})
        self.workloads.update({workload.uid: workload for workload in update.workloads})
        self.at_waypoints = update.at_waypoints or self.at_waypoints
        self._take_http(update)
        self._take_rejections(update)
        self.updates += 1
        self.updated = time.time()
        self.on_update(update)

    def _take_http(self, update: Update) -> None:
        if update.http is None:
            return
        if self.http is None:
            from runtime.model.http_picture import HttpPicture

            self.http = HttpPicture()
        self.http.take(update.http)

    def _take_rejections(self, update: Update) -> None:
        """A resource that comes anew, or goes, is no longer rejected."""
        good = [service.key for service in update.services]
        good += [workload.uid for workload in update.workloads]
        good += [policy.key for policy in update.policies]
        gone = (
            *update.removed_services,
            *update.removed_workloads,
            *update.removed_policies,
            *update.accepted,
        )
        for resource in (*good, *gone):
            self.rejected.pop(resource, None)
        self.rejected.update({each.resource: each.reason for each in update.rejections})

    def summary(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "details": self.details(),
            "synced": _iso(self.synced),
            "updated": _iso(self.updated),
            "updates": self.updates,
            "trouble": self.trouble,
            "rejected": dict(self.rejected),
            "failed": dict(self.failed),
        }

    @property
    def unguarded(self) -> str:
        """Why the source was never told of policies that there may be; "" where that is not so."""
        return str(self.details().get("unguarded") or "")

    def bypassing(self) -> dict[str, list[int]]:
        """TCP ports that go past the waypoint of a service or workload: the server may speak first."""
        services, workloads = self.services.copy(), self.workloads.copy()
        found = {key: bypassing(one) for key, one in services.items() if one.waypoints}
        found |= {
            uid: bypassing_directly(one, services.get)
            for uid, one in workloads.items()
            if one.waypoint is not None
        }
        return {name: list(ports) for name, ports in sorted(found.items()) if ports}

    def describe_services(self) -> list[Mapping[str, Any]]:
        """Every service with its endpoints, ready for JSON."""
        serving: defaultdict[str, list[Workload]] = defaultdict(list)
        for workload in list(self.workloads.values()):
            for key in workload.services:
                serving[key].append(workload)
        services = sorted(self.services.copy().items())
        return [_service(key, service, serving[key]) for key, service in services]

    def describe_workloads(self) -> list[Mapping[str, Any]]:
        """Every workload, ready for JSON."""
        return [_workload(each) for _, each in sorted(self.workloads.copy().items())]


def _service(key: str, service: Service, workloads: list[Workload]) -> Mapping[str, Any]:
    return {
        "name": service.name,
        "namespace": service.namespace,
        "hostname": service.hostname,
        "addresses": [str(each.address) for each in service.addresses],
        "ports": [_port(port) for port in service.ports],
        "endpoints": [_endpoint(key, each) for each in workloads],
        "waypoints": [f"{each.destination}:{each.port}" for each in service.waypoints],
    }


def _port(port: ServicePort) -> Mapping[str, Any]:
    return {
        "name": port.name,
        "port": port.service_port,
        "target_port": port.target_port or None,
        "protocol": str(port.protocol),
    }


def _endpoint(key: str, workload: Workload) -> Mapping[str, Any]:
    return {
        "workload": workload.uid,
        "addresses": [str(address) for address in workload.addresses],
        "ports": [_port(port) for port in workload.services[key]],
        "healthy": workload.healthy,
        "zone": workload.locality.zone,
        "node": workload.node,
    }


def _workload(workload: Workload) -> Mapping[str, Any]:
    return {
        "uid": workload.uid,
        "name": workload.name,
        "namespace": workload.namespace,
        "addresses": [str(address) for address in workload.addresses],
        "services": {
            key: [_port(port) for port in ports] for key, ports in workload.services.items()
        },
        "healthy": workload.healthy,
        "node": workload.node,
        "zone": workload.locality.zone,
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
