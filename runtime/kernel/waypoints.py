# SPDX-License-Identifier: Apache-2.0
"""How connections to waypoints fare, as the programs count them (bpf/include/kmesh/bar.h)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address

from runtime.bpf.maps import BpfMap
from runtime.kernel.percpu import total
from runtime.tables.layout import Bar, BarKey


@dataclass(frozen=True, slots=True)
class Barred:
    """An instance that new connections avoid, for so many seconds yet; 0: the next one tries it."""

    address: str
    port: int
    failures: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WaypointFacts:
    """Since the maps were made.

    Attributes:
        unreached: connections that an instance did not take.
        diverted: connections that went to another instance than a barred one.
        unintroduced: connections for whose header there was no room, which the waypoint turns down.
        refused: connections refused because there would be none.
        barred: the instances that are avoided now.
    """

    unreached: int
    diverted: int
    unintroduced: int
    refused: int
    barred: tuple[Barred, ...]


def read_waypoints(maps: Mapping[str, BpfMap]) -> WaypointFacts:
    """Read the counters and the bars of a path's maps."""
    counters = maps["waypoint_counters"]
    now = time.monotonic_ns()
    barred = [
        _barred(BarKey.unpack(key), Bar.unpack(value), now)
        for key in list(maps["barred"].keys())
        if (value := maps["barred"].lookup(key)) is not None
    ]
    return WaypointFacts(
        unreached=total(counters, 0),
        diverted=total(counters, 1),
        unintroduced=total(counters, 2),
        refused=total(counters, 3),
        barred=tuple(sorted(barred, key=lambda one: (one.address, one.port))),
    )


def _barred(key: BarKey, bar: Bar, now: int) -> Barred:
    address = IPv6Address(key.address)
    return Barred(
        str(address.ipv4_mapped or address),
        int.from_bytes(key.port, "big"),
        bar.failures,
        round(max(0, bar.until_ns - now) / 1e9, 1),
    )
