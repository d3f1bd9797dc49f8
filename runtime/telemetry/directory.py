# SPDX-License-Identifier: Apache-2.0
"""Who has an address: workloads and services, kept up change by change."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple, Protocol

from runtime.model.mesh import IPAddress, Service, Workload
from runtime.tables.telemetry_layout import TcpFlow

OUTBOUND, INBOUND = 1, 2  # struct kmesh_tcp_flow, direction
_NOWHERE = bytes(16)


class Change(Protocol):
    """The part of a source's update that the directory takes."""

    @property
    def services(self) -> Iterable[Service]: ...
    @property
    def workloads(self) -> Iterable[Workload]: ...
    @property
    def removed_services(self) -> Iterable[str]: ...
    @property
    def removed_workloads(self) -> Iterable[str]: ...
    @property
    def complete(self) -> bool: ...


class Parties(NamedTuple):
    """Who is at the ends of a connection, as far as the source says."""

    source: Workload | None
    destination: Workload | None
    service: Service | None


class Directory:
    """Finds the parties of a connection. One thread changes it and asks it.

    Attributes:
        version: another number after every change.
    """

    def __init__(self) -> None:
        self.version = 0
        self._workloads: dict[str, Workload] = {}
        self._services: dict[str, Service] = {}
        self._by_address: dict[bytes, str] = {}  # of workloads
        self._by_service_address: dict[bytes, str] = {}

    def take(self, change: Change) -> None:
        """Take over what an update says."""
        if change.complete:
            for table in (self._workloads, self._services):
                table.clear()
            self._by_address.clear()
            self._by_service_address.clear()
        for uid in change.removed_workloads:
            self._drop_workload(uid)
        for key in change.removed_services:
            self._drop_service(key)
        for workload in change.workloads:
            self._put_workload(workload)
        for service in change.services:
            self._put_service(service)
        self.version += 1

    def _put_workload(self, workload: Workload) -> None:
        self._drop_workload(workload.uid)
        self._workloads[workload.uid] = workload
        for address in workload.addresses:
            self._by_address[packed(address)] = workload.uid

    def _drop_workload(self, uid: str) -> None:
        before = self._workloads.pop(uid, None)
        for address in before.addresses if before else ():
            if self._by_address.get(packed(address)) == uid:
                del self._by_address[packed(address)]

    def _put_service(self, service: Service) -> None:
        self._drop_service(service.key)
        self._services[service.key] = service
        for each in service.addresses:
            self._by_service_address[packed(each.address)] = service.key

    def _drop_service(self, key: str) -> None:
        before = self._services.pop(key, None)
        for each in before.addresses if before else ():
            if self._by_service_address.get(packed(each.address)) == key:
                del self._by_service_address[packed(each.address)]

    def parties(self, flow: TcpFlow) -> Parties:
        """The workloads at both ends, and the service that the client asked for.

        A server's socket does not know the address that its client asked for: there it is a service
        that this workload serves on this port.
        """
        destination = self._workload(flow.destination)
        if flow.service != _NOWHERE:
            key = self._by_service_address.get(flow.service)
        elif flow.direction == INBOUND and destination:
            key = _service_on(destination, int.from_bytes(flow.destination_port, "big"))
        else:
            key = None
        service = self._services.get(key) if key else None
        return Parties(self._workload(flow.source), destination, service)

    def service_at(self, address: bytes) -> Service | None:
        """Whose address a client asked for."""
        key = self._by_service_address.get(address)
        return self._services.get(key) if key else None

    def workload_at(self, address: bytes) -> Workload | None:
        return self._workload(address)

    def _workload(self, address: bytes) -> Workload | None:
        uid = self._by_address.get(address)
        return self._workloads.get(uid) if uid else None


def _service_on(workload: Workload, port: int) -> str | None:
    """The first service, by name, that a workload serves on one of its ports."""
    for key in sorted(workload.services):
        if any((each.target_port or each.service_port) == port for each in workload.services[key]):
            return key
    return None


def packed(address: IPAddress) -> bytes:
    """An address as maps hold it: 16 bytes, IPv4 ones mapped into IPv6."""
    prefix = b"" if address.version == 6 else bytes(10) + b"\xff\xff"
    return prefix + address.packed


def unpacked(data: bytes) -> IPAddress:
    """The address of 16 bytes."""
    address = IPv6Address(data)
    return ip_address(address.ipv4_mapped) if address.ipv4_mapped else address
