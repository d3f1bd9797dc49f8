# SPDX-License-Identifier: Apache-2.0
"""What the tables must come to, told in the plainest way, and a kernel made of dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from typing import Any

from runtime.model.mesh import (
    BalancingMode,
    HealthPolicy,
    IPAddress,
    NetworkAddress,
    Protocol,
    Service,
    ServicePort,
    Workload,
)
from runtime.tables.layout import Cluster, ClusterKey, Endpoint, Frontend, FrontendKey, SlotKey
from runtime.tables.ops import Contents, Op
from runtime.tables.place import Place

Endpoints = Counter[tuple[bytes, int, int]]  # address, port, weight

TCP = 6


def mapped(address: IPAddress | str) -> bytes:
    address = ip_address(address) if isinstance(address, str) else address
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def service(name: str, *addresses: str, ports: Iterable[int] = (80,), **extra: Any) -> Service:
    return Service(
        name=name,
        namespace="ns",
        hostname=name,
        addresses=tuple(NetworkAddress(ip_address(address)) for address in addresses),
        ports=tuple(ServicePort(service_port=port, target_port=8000 + port) for port in ports),
        **extra,
    )


def workload(
    uid: str, *addresses: str, serves: Iterable[str] = ("a",), ports: Iterable[int] = (80,),
    **extra: Any,
) -> Workload:  # fmt: skip
    return Workload(
        uid=uid,
        name=uid,
        namespace="ns",
        addresses=tuple(ip_address(address) for address in addresses),
        services={
            f"ns/{name}": tuple(ServicePort(service_port=port) for port in ports) for name in serves
        },
        **extra,
    )


class Maps:
    """The kernel's maps as dictionaries, which check after every operation that all is whole."""

    def __init__(self, contents: Contents | None = None) -> None:
        contents = contents or Contents()
        self.tables = {
            "frontends": dict(contents.frontends),
            "clusters": dict(contents.clusters),
            "slots": dict(contents.slots),
            **({"source_tlvs": dict(contents.source_tlvs)} if contents.source_tlvs else {}),
        }

    def contents(self) -> Contents:
        return Contents(**{name: dict(table) for name, table in self.tables.items()})

    def run(self, ops: Iterable[Op], *, allowed: dict[int, set[bytes]] | None = None) -> None:
        for op in ops:
            table = self.tables[op.table]
            if op.value is None:
                del table[op.key]
            else:
                assert table.get(op.key) != op.value, "written without need"
                table[op.key] = op.value
            if allowed is not None:
                self.check(allowed)

    def members(self, number: int) -> list[bytes]:
        """What a connection may be given: each slot that the cluster counts."""
        value = Cluster.unpack(self.tables["clusters"][ClusterKey(number).pack()])
        return [
            self.tables["slots"][SlotKey(number, kind << 24 | index).pack()]
            for kind, size in enumerate(value.counts)
            for index in range(size)
        ]

    def check(self, allowed: dict[int, set[bytes]]) -> None:
        """No half update: what is pointed at is there, and was or will be right."""
        for value in self.tables["frontends"].values():
            number = Frontend.unpack(value).cluster
            assert set(self.members(number)) <= allowed[number]
        for key in self.tables["clusters"]:
            self.members(ClusterKey.unpack(key).cluster)

    def check_weights(self) -> None:
        for key, packed in self.tables["clusters"].items():
            value = Cluster.unpack(packed)
            members = [Endpoint.unpack(one) for one in self.members(ClusterKey.unpack(key).cluster)]
            assert value.total == sum(one.weight for one in members) == sum(value.weights)
            for kind in range(16):
                inside = [one for one in members if 1 << kind <= one.weight < 2 << kind]
                assert value.counts[kind] == len(inside)
                assert value.weights[kind] == sum(one.weight for one in inside)
        counted = sum(
            sum(Cluster.unpack(value).counts) for value in self.tables["clusters"].values()
        )
        assert counted == len(self.tables["slots"])

    def view(self) -> dict[tuple[bytes, int, int], Endpoints]:
        """Endpoints by service address, port and protocol."""
        found = {}
        for key, value in self.tables["frontends"].items():
            where = FrontendKey.unpack(key)
            members = [Endpoint.unpack(one) for one in self.members(Frontend.unpack(value).cluster)]
            place = (where.address, int.from_bytes(where.port, "big"), where.protocol)
            found[place] = Counter(
                (one.address, int.from_bytes(one.port, "big"), one.weight) for one in members
            )
        return found

    def by_cluster(self) -> dict[int, set[bytes]]:
        found: dict[int, set[bytes]] = {}
        for key in self.tables["clusters"]:
            number = ClusterKey.unpack(key).cluster
            found[number] = set(self.members(number))
        return found


def _usable(one: Service, other: Workload, place: Place) -> bool:
    if place.network is not None and other.network != place.network:
        return False
    healthy = other.healthy or one.load_balancing.health_policy is HealthPolicy.ALLOW_ALL
    return healthy and other.capacity > 0


def _endpoints(
    one: Service, port: ServicePort, version: int, others: Iterable[Workload], place: Place
) -> Endpoints:
    ranked: list[tuple[int, tuple[bytes, int, int]]] = []
    for other in others:
        served = [
            item
            for item in other.services.get(one.key, ())
            if item.service_port == port.service_port and item.protocol == port.protocol
        ]
        addresses = [address for address in other.addresses if address.version == version]
        rank = place.rank(one.load_balancing, other)
        if served and addresses and _usable(one, other, place) and rank is not None:
            target = served[0].target_port or port.target_port or port.service_port
            ranked.append((rank, (mapped(addresses[0]), target, other.capacity)))
    best = max((rank for rank, _ in ranked), default=0)
    return Counter(endpoint for rank, endpoint in ranked if rank == best)


def naive(
    services: dict[str, Service], workloads: dict[str, Workload], place: Place
) -> dict[tuple[bytes, int, int], Endpoints]:
    """Endpoints by service address, port and protocol, worked out from nothing."""
    found = {}
    for key in sorted(services, key=lambda key: (not services[key].canonical, key), reverse=True):
        one = services[key]
        if one.load_balancing.mode is BalancingMode.PASSTHROUGH:
            continue
        for at in one.addresses:
            for port in one.ports:
                number = TCP if port.protocol is Protocol.TCP else 17
                found[mapped(at.address), port.service_port, number] = _endpoints(
                    one, port, at.address.version, workloads.values(), place
                )
    return found
