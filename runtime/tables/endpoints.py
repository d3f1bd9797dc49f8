# SPDX-License-Identifier: Apache-2.0
"""From the model to bytes: addresses, cluster numbers, endpoints."""

from __future__ import annotations

from hashlib import blake2b
from ipaddress import IPv6Address
from typing import NamedTuple

from runtime.model.mesh import (
    HealthPolicy,
    IPAddress,
    Protocol,
    Service,
    ServicePort,
    Workload,
)
from runtime.tables.layout import Endpoint, FrontendKey
from runtime.tables.place import Place

MAX_WEIGHT = 0xFFFF  # sixteen classes
_MAPPED = bytes(10) + b"\xff\xff"
_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17}


class Candidate(NamedTuple):
    """An endpoint that a cluster may use: the slot's bytes, its weight, and how near it is."""

    packed: bytes
    weight: int
    rank: int

    def weighing(self, weight: int) -> Candidate:
        """The same endpoint with another weight, among others of any rank."""
        return Candidate(Endpoint.unpack(self.packed)._replace(weight=weight).pack(), weight, 0)


def family(address: IPAddress) -> int:
    """4 or 6; an IPv4 address mapped into IPv6 is an IPv4 address."""
    if isinstance(address, IPv6Address):
        return 4 if address.ipv4_mapped else 6
    return 4


def pack_address(address: IPAddress) -> bytes:
    """Sixteen bytes in network order, IPv4 as ::ffff:a.b.c.d."""
    return address.packed if address.version == 6 else _MAPPED + address.packed


def pack_port(port: int) -> bytes:
    return port.to_bytes(2, "big")


def frontend_key(address: IPAddress, port: ServicePort) -> bytes:
    """The key under which a connection to a service's address is looked up."""
    return FrontendKey(
        pack_address(address), pack_port(port.service_port), _NUMBERS[port.protocol]
    ).pack()


def cluster_id(service: str, port: ServicePort, version: int) -> int:
    """A number for the endpoints of one port and family: the same in every process.

    Below 2**63: from there on they are of the clusters that routes lead to (HTTP_CLUSTER).
    """
    name = f"{service}|{port.service_port}|{port.protocol}|{version}"
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


def is_port(number: int) -> bool:
    return 0 < number < 0x10000


def _target_port(service: str, port: ServicePort, workload: Workload) -> int | None:
    """The port on which a workload serves a service's port, None when it does not."""
    for served in workload.services.get(service, ()):
        if served.service_port == port.service_port and served.protocol == port.protocol:
            return served.target_port or port.target_port or port.service_port
    return None


def _is_reachable(packed: bytes) -> bool:
    """Neither unspecified nor multicast, told from the bytes: there may be 100,000 of them."""
    if packed.startswith(_MAPPED):
        return packed[12:] != bytes(4) and packed[12] >> 4 != 0xE
    return packed[0] != 0xFF and packed != bytes(16)


def _address(workload: Workload, version: int) -> bytes | None:
    """The first address of a family: one workload is one endpoint, or weights would not hold."""
    for address in workload.addresses:
        packed = pack_address(address)
        if packed.startswith(_MAPPED) == (version == 4) and _is_reachable(packed):
            return packed
    return None


def is_usable(service: Service, workload: Workload, place: Place) -> bool:
    """Whether a workload may be given connections at all."""
    if not workload.healthy and service.load_balancing.health_policy != HealthPolicy.ALLOW_ALL:
        return False
    if place.network is not None and workload.network != place.network:
        return False  # reached through its network's gateway, not directly
    return workload.capacity > 0


def candidate(
    service: Service,
    key: str,
    port: ServicePort,
    version: int,
    *,
    workload: Workload,
    place: Place,
    as_waypoint: bool = False,
) -> Candidate | None:
    """A workload as an endpoint of one port and family of a service, or None when it is none.

    A waypoint is one also where the service does not have that port, as waypoints listen on a port
    that their service need not tell; one that names a port for the PROXY protocol is reached there, and
    others where this node's waypoint ports say.
    """
    target = _target_port(key, port, workload)
    if as_waypoint:
        told = target or port.service_port
        target = workload.proxy_port or place.waypoint_port(told)
    address = _address(workload, version)
    if target is None or not is_port(target) or address is None:
        return None
    rank = place.rank(service.load_balancing, workload)
    if rank is None or not is_usable(service, workload, place):
        return None
    weight = min(workload.capacity, MAX_WEIGHT)
    packed = Endpoint(address, pack_port(target), 0, weight).pack()
    return Candidate(packed, weight, rank)


def fixed(address: IPAddress, port: ServicePort, *, place: Place) -> Candidate:
    """A waypoint's address that no workload is known to have, as an endpoint."""
    number = place.waypoint_port(port.service_port)
    packed = Endpoint(pack_address(address), pack_port(number), 0, 1).pack()
    return Candidate(packed, 1, 0)


def workload_problem(workload: Workload) -> str | None:
    """What of a workload cannot be served as it is said, or None."""
    if workload.capacity > MAX_WEIGHT:
        return f"capacity {workload.capacity} counts as {MAX_WEIGHT}"
    for key, ports in workload.services.items():
        for port in ports:
            if not 0 <= port.target_port < 0x10000:
                return f"target port {port.target_port} for {key} is no port number"
    for address in workload.addresses:
        if not _is_reachable(pack_address(address)):
            return f"address {address} cannot be connected to"
    return None
