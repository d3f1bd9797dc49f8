# SPDX-License-Identifier: Apache-2.0
"""What the programs find in the tables for an address: the same look-ups, in Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Protocol

from runtime.model.mesh import IPAddress
from runtime.tables.endpoints import pack_address
from runtime.tables.layout import Cluster, ClusterKey, Endpoint, Frontend, FrontendKey, SlotKey
from runtime.tables.waypoints import FLAG as WAYPOINT

PROTOCOLS = {6: "TCP", 17: "UDP"}
_SHIFT = 24  # KMESH_CLASS_SHIFT
_TRIES = 5


class Tables(Protocol):
    """The service tables, wherever they are."""

    def lookup(self, table: str, key: bytes) -> bytes | None: ...
    def items(self, table: str) -> Iterator[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Share:
    """An endpoint, and the part of all new connections that it gets, in percent."""

    address: IPAddress
    port: int
    weight: int
    percent: float


@dataclass(frozen=True, slots=True)
class Destination:
    """What a frontend stands for in the kernel; without endpoints connections are refused."""

    cluster: int
    to_waypoint: bool
    endpoints: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class FrontendName:
    """A frontend's key in words."""

    address: IPAddress
    port: int
    protocol: str

    @classmethod
    def of(cls, key: bytes) -> FrontendName:
        """Raises: struct.error: it is no frontend's key."""
        raw = FrontendKey.unpack(key)
        protocol = PROTOCOLS.get(raw.protocol, str(raw.protocol))
        return cls(unpack_address(raw.address), int.from_bytes(raw.port, "big"), protocol)

    @property
    def key(self) -> bytes:
        number = next(number for number, name in PROTOCOLS.items() if name == self.protocol)
        port = self.port.to_bytes(2, "big")
        return FrontendKey(pack_address(self.address), port, number).pack()

    def __str__(self) -> str:
        return f"{host_port(self.address, self.port)}/{self.protocol}"


def unpack_address(packed: bytes) -> IPAddress:
    """An address from its sixteen bytes, IPv4 where it is mapped."""
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def host_port(address: IPAddress, port: int) -> str:
    """As URLs write it: 10.0.0.1:80, [fd00::1]:80."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def frontends_of(tables: Tables, address: IPAddress) -> list[FrontendName]:
    """Every port that the kernel knows of an address, in order."""
    packed = pack_address(address)
    found = [FrontendName.of(key) for key, _ in tables.items("frontends") if key[:16] == packed]
    return sorted(found, key=lambda one: (one.port, one.protocol))


def find_destination(tables: Tables, frontend: FrontendName) -> Destination | None:
    """Where the programs send a connection to this frontend; None when it is none of theirs."""
    value = tables.lookup("frontends", frontend.key)
    if value is None:
        return None
    found = Frontend.unpack(value)
    endpoints = read_cluster(tables, found.cluster)
    return Destination(found.cluster, bool(found.flags & WAYPOINT), endpoints)


def read_cluster(tables: Tables, number: int) -> tuple[Share, ...]:
    """The endpoints of a cluster, the heaviest first; none when it has none.

    A daemon may change it meanwhile: it is read until its head is the same before and after.
    """
    key = ClusterKey(number).pack()
    shares: tuple[Share, ...] = ()
    for _ in range(_TRIES):
        head = tables.lookup("clusters", key)
        shares = _shares(tables, number, Cluster.unpack(head)) if head else ()
        if tables.lookup("clusters", key) == head:
            break
    return shares


def _shares(tables: Tables, number: int, cluster: Cluster) -> tuple[Share, ...]:
    endpoints = []
    for group, size in enumerate(cluster.counts):
        for index in range(size):
            packed = tables.lookup("slots", SlotKey(number, group << _SHIFT | index).pack())
            if packed is not None:
                endpoints.append(Endpoint.unpack(packed))
    shares = [
        Share(
            unpack_address(one.address),
            int.from_bytes(one.port, "big"),
            one.weight,
            round(100 * one.weight / cluster.total, 4) if cluster.total else 0.0,
        )
        for one in endpoints
    ]
    return tuple(sorted(shares, key=lambda one: (-one.weight, one.address.packed, one.port)))
