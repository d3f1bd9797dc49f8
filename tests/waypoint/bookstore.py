# SPDX-License-Identifier: Apache-2.0
"""The bookstore as Istiod described it, and connections as the gate makes them."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from runtime.source.envoy.decode import decode
from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES, read, type_url
from runtime.waypoint import admin
from runtime.waypoint.ads import AdsServer
from runtime.waypoint.bootstrap import ADMIN
from tests.source.envoy.wire import payloads

CDS, EDS, LDS, RDS = map(type_url, (CLUSTER, ENDPOINTS, LISTENER, ROUTES))
REVIEWS, RATINGS = "10.96.59.207", "10.96.159.132"
V1, V2, V3 = "10.244.0.5:8080", "10.244.0.9:8080", "10.244.0.6:8080"
ENDPOINTS_THERE = (V1, V2, V3, "10.244.0.7:8080", "10.244.0.8:8080")
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_SECONDS = 30

Resources = dict[str, dict[str, bytes]]


def recorded() -> Resources:
    """What Istiod sent, by type and name."""
    return {
        type_url(kind): {decode(kind, payload)[0]: payload for payload in payloads(kind)}
        for kind in (CLUSTER, ENDPOINTS, LISTENER, ROUTES)
    }


def changed(
    resources: Resources, kind: str, name: str, change: Callable[[Any], object]
) -> Resources:
    """The same, with one resource changed by a function of its message."""
    wire = read(kind, resources[type_url(kind)][name])
    change(wire)
    made = {each: dict(resources[each]) for each in resources}
    made[type_url(kind)][name] = wire.SerializeToString()
    return made


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        """What a backend tells."""
        return json.loads(self.body)


def introduction(destination: str, port: int) -> bytes:
    """PROXY protocol v2, from a pod to a service."""
    addresses = socket.inet_aton("10.244.0.99") + socket.inet_aton(destination)
    return (
        _SIGNATURE
        + b"\x21\x11"
        + struct.pack("!H", 12)
        + addresses
        + struct.pack("!HH", 4321, port)
    )


def connect(path: Path, destination: str, port: int) -> socket.socket:
    """A connection as the gate makes it."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(_SECONDS)
        made.connect(str(path))
        made.sendall(introduction(destination, port))
    except BaseException:
        made.close()
        raise
    return made


def exchange(
    connection: socket.socket, target: str, host: str, headers: dict[str, str] | None = None
) -> Reply:
    """One request on a connection."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = HTTPResponse(connection)
    answer.begin()
    told = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(answer.status, told, answer.read())


def request(
    path: Path,
    destination: str,
    port: int,
    target: str,
    host: str,
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request on a connection of its own."""
    with connect(path, destination, port) as connection:
        return exchange(connection, target, host, headers)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for knows no events
            await asyncio.sleep(0.02)


async def taken(ads: AdsServer, envoy: Path) -> None:
    """Wait until Envoy has been told everything, and serves."""
    await until(lambda: ads.settled and admin.is_ready(envoy.with_name(ADMIN)))
