# SPDX-License-Identifier: Apache-2.0
"""Services and endpoint slices, joined into the model's services and workloads.

A workload is a pod, which may serve several services and be found in several slices (one for
IPv4 and one for IPv6, say), or else an endpoint of a slice that names no pod. When an object changes, only
the services that it concerns, and their workloads, are made again: the cost of a change is
proportional to the change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from runtime.model.mesh import Locality, Service, ServicePort, Workload
from runtime.source.kubernetes_pod import Pod
from runtime.source.kubernetes_service import service_key
from runtime.source.kubernetes_slice import EndpointSlice, SliceEndpoint, SlicePort

CLUSTER = "Kubernetes"  # the name that Istio gives a cluster that has none

Identity = tuple[str, str, str]  # kind, namespace, name
Manifest = Service | EndpointSlice | Pod


@dataclass(frozen=True, slots=True)
class _Role:
    """What an endpoint is to one service: on which ports it serves it, and whether it may be used."""

    namespace: str
    endpoint: SliceEndpoint
    ports: tuple[ServicePort, ...]
    usable: bool


@dataclass(slots=True)
class Changes:
    services: dict[str, Service | None] = field(default_factory=dict)
    workloads: dict[str, Workload | None] = field(default_factory=dict)


class Join:
    """The current picture; `apply` takes changed objects and gives what changed in the model."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.workloads: dict[str, Workload] = {}
        self._slices: dict[Identity, EndpointSlice] = {}
        self._pods: dict[str, Pod] = {}  # by workload
        self._slices_of: defaultdict[str, set[Identity]] = defaultdict(set)
        self._roles: dict[str, dict[str, list[_Role]]] = {}  # service → workload → roles
        self._serves: defaultdict[str, set[str]] = defaultdict(set)  # workload → services

    def apply(self, objects: Mapping[Identity, Manifest | None]) -> Changes:
        """Take objects that are new or changed, or None for those that are gone."""
        changes = Changes()
        touched: set[str] = set()
        told: set[str] = set()  # workloads of which something else is told
        for identity, manifest in objects.items():
            if identity[0] == "Service":
                touched |= self._put_service(identity, manifest, changes)
                told |= self._roles.get(service_key(identity[2], identity[1]), {}).keys()
            elif identity[0] == "Pod":
                told.add(self._put_pod(identity, manifest))
            else:
                touched |= self._put_slice(identity, manifest)
        for uid in sorted(self._assign_roles(touched) | told):
            self._put_workload(uid, changes)
        return changes

    def resources(self, identity: Identity) -> list[str]:
        """The names of the model's services and workloads that an object tells of."""
        if identity[0] == "Service":
            return [service_key(identity[2], identity[1])]
        if identity[0] == "Pod":
            return [_pod_uid(identity[1], identity[2])]
        part = self._slices.get(identity)
        return [_uid(part, endpoint) for endpoint in part.endpoints] if part else []

    def _put_service(
        self, identity: Identity, manifest: Manifest | None, changes: Changes
    ) -> set[str]:
        key = service_key(identity[2], identity[1])
        if isinstance(manifest, Service):
            if self.services.get(key) == manifest:
                return set()
            self.services[key] = changes.services[key] = manifest
        elif self.services.pop(key, None):
            changes.services[key] = None
        return {key}

    def _put_pod(self, identity: Identity, manifest: Manifest | None) -> str:
        """Store what a pod tells, and name the workload that it is."""
        uid = _pod_uid(identity[1], identity[2])
        if isinstance(manifest, Pod):
            self._pods[uid] = manifest
        else:
            self._pods.pop(uid, None)
        return uid

    def _put_slice(self, identity: Identity, manifest: Manifest | None) -> set[str]:
        """Store a slice, and name the services that it belongs or belonged to."""
        before = self._slices.pop(identity, None)
        if before:
            self._slices_of[before.service].discard(identity)
        if not isinstance(manifest, EndpointSlice):
            return {before.service} if before else set()
        self._slices[identity] = manifest
        self._slices_of[manifest.service].add(identity)
        return {manifest.service} | ({before.service} if before else set())

    def _assign_roles(self, services: Iterable[str]) -> set[str]:
        """Work out anew who serves these services; returns the workloads concerned."""
        concerned: set[str] = set()
        for key in services:
            before = self._roles.pop(key, {})
            after = self._roles_in(key)
            for uid in before.keys() - after.keys():
                self._serves[uid].discard(key)
            for uid in after:
                self._serves[uid].add(key)
            if after:
                self._roles[key] = after
            concerned |= {u for u in before.keys() | after.keys() if before.get(u) != after.get(u)}
        return concerned

    def _roles_in(self, key: str) -> dict[str, list[_Role]]:
        service = self.services.get(key)
        if service is None:
            return {}
        slices = [self._slices[identity] for identity in sorted(self._slices_of[key])]
        everyone = [(part, endpoint) for part in slices for endpoint in part.endpoints]
        any_ready = any(endpoint.ready for _, endpoint in everyone)
        ports = {part.name: _ports(service, part.ports) for part in slices}
        roles: defaultdict[str, list[_Role]] = defaultdict(list)
        seen = set()
        for part, endpoint in everyone:
            usable = endpoint.ready if any_ready else endpoint.draining
            role = _Role(part.namespace, endpoint, ports[part.name], usable)
            # An endpoint that moves between slices is in both for a while.
            if role not in seen:
                seen.add(role)
                roles[_uid(part, endpoint)].append(role)
        return dict(roles)

    def _put_workload(self, uid: str, changes: Changes) -> None:
        roles = {key: self._roles[key][uid] for key in sorted(self._serves[uid])}
        if not roles:
            self._serves.pop(uid, None)
            if self.workloads.pop(uid, None):
                changes.workloads[uid] = None
            return
        made = self._known(_workload(uid, roles), roles)
        if self.workloads.get(uid) != made:
            self.workloads[uid] = changes.workloads[uid] = made

    def _known(self, workload: Workload, services: Iterable[str]) -> Workload:
        """With its labels: all of them, or without its pod those that its services select by."""
        pod = self._pods.get(workload.uid)
        if pod is not None:
            account = pod.service_account
            return replace(workload, labels=pod.labels, all_labels=True, service_account=account)
        found = {label for key in services for label in self.services[key].selector}
        return replace(workload, labels=tuple(sorted(found))) if found else workload


def _pod_uid(namespace: str, name: str) -> str:
    return f"{CLUSTER}//Pod/{namespace}/{name}"


def _uid(part: EndpointSlice, endpoint: SliceEndpoint) -> str:
    """Istio's form: cluster/group/kind/namespace/name."""
    if endpoint.pod:
        return _pod_uid(part.namespace, endpoint.pod)
    group = "discovery.k8s.io/EndpointSlice"
    return f"{CLUSTER}/{group}/{part.namespace}/{part.name}/{endpoint.addresses[0]}"


def _ports(service: Service, offered: tuple[SlicePort, ...]) -> tuple[ServicePort, ...]:
    """The service's ports as a slice offers them: by name and protocol, with its numbers."""
    by_name = {(port.name, port.protocol): port for port in offered}
    ports = []
    for port in service.ports:
        match = by_name.get((port.name, port.protocol))
        target = (match.number or port.target_port) if match else 0
        if target:
            ports.append(
                ServicePort(
                    service_port=port.service_port,
                    target_port=target,
                    protocol=port.protocol,
                    app_protocol=port.app_protocol,
                    name=port.name,
                )
            )
    return tuple(ports)


def _workload(uid: str, roles: Mapping[str, list[_Role]]) -> Workload:
    """One workload out of all its roles; unhealthy where no service may use it."""
    everything = [role for some in roles.values() for role in some]
    healthy = any(role.usable for role in everything)
    first = everything[0].endpoint
    chosen = [role for role in everything if role.usable or not healthy]
    addresses = dict.fromkeys(address for role in chosen for address in role.endpoint.addresses)
    services = {
        key: _merge(role.ports for role in some if role.usable or not healthy)
        for key, some in roles.items()
    }
    return Workload(
        uid=uid,
        name=first.pod or first.hostname or str(first.addresses[0]),
        namespace=everything[0].namespace,
        addresses=tuple(addresses),
        hostname=first.hostname,
        services={key: ports for key, ports in services.items() if ports},
        node=first.node,
        locality=Locality(zone=first.zone),
        cluster=CLUSTER,
        healthy=healthy,
    )


def _merge(groups: Iterable[tuple[ServicePort, ...]]) -> tuple[ServicePort, ...]:
    """One list of ports out of several slices'; the first to name a port decides its target."""
    merged: dict[tuple[int, str], ServicePort] = {}
    for port in (port for group in groups for port in group):
        merged.setdefault((port.service_port, port.protocol), port)
    return tuple(merged.values())
