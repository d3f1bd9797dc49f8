# SPDX-License-Identifier: Apache-2.0
"""What the kernel's maps alone tell: addresses, shares, and who is managed. They hold no names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from runtime.kernel.reader import PinnedTables
from runtime.tables.lookup import Destination, FrontendName, find_destination, host_port

Json = Mapping[str, Any]


class _Copy:
    """All of the service tables, read once."""

    def __init__(self, tables: PinnedTables) -> None:
        names = ("frontends", "clusters", "slots")
        self._tables = {name: dict(tables.items(name)) for name in names}

    def lookup(self, table: str, key: bytes) -> bytes | None:
        return self._tables[table].get(key)

    def items(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._tables[table].items())


def describe_status(tables: PinnedTables) -> Json:
    """What is in the kernel, and for whom it works."""
    counts = {
        name: sum(1 for _ in tables.items(name)) for name in ("frontends", "clusters", "slots")
    }
    return {
        "pins": str(tables.pins),
        "path": tables.path,
        "counts": {
            "service_ports": counts["frontends"],
            "clusters": counts["clusters"],
            "endpoints": counts["slots"],
        },
        "programs": tables.programs(),
        "network_namespaces": sum(1 for _ in tables.items("managed_netns")),
    }


def describe_services(tables: PinnedTables) -> list[Json]:
    """Every service address and port with its endpoints."""
    return [_service(frontend, to) for frontend, to in _everything(tables)]


def describe_workloads(tables: PinnedTables) -> list[Json]:
    """Every endpoint's address, with the service ports that lead there."""
    serves: defaultdict[tuple[int, bytes], list[str]] = defaultdict(list)
    names: dict[tuple[int, bytes], str] = {}
    for frontend, to in _everything(tables):
        for share in to.endpoints:
            place = (share.address.version, share.address.packed)
            names[place] = str(share.address)
            serves[place].append(f"{frontend} at port {share.port}")
    return [
        {"address": names[place], "serves": list(dict.fromkeys(serves[place]))}
        for place in sorted(serves)
    ]


def _everything(tables: PinnedTables) -> Iterator[tuple[FrontendName, Destination]]:
    copy = _Copy(tables)
    frontends = [FrontendName.of(key) for key, _ in copy.items("frontends")]
    for frontend in sorted(frontends, key=_order):
        to = find_destination(copy, frontend)
        if to is not None:
            yield frontend, to


def _order(frontend: FrontendName) -> tuple[int, bytes, int, str]:
    address = frontend.address
    return address.version, address.packed, frontend.port, frontend.protocol


def _service(frontend: FrontendName, to: Destination) -> Json:
    return {
        "frontend": str(frontend),
        "cluster": f"{to.cluster:016x}",
        "waypoint": to.to_waypoint,
        "endpoints": [
            {
                "address": str(share.address),
                "port": share.port,
                "to": host_port(share.address, share.port),
                "weight": share.weight,
                "share_percent": share.percent,
            }
            for share in to.endpoints
        ],
    }
