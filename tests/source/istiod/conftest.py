# SPDX-License-Identifier: Apache-2.0
"""A server with two services, and sources that end with their test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from runtime.source.istiod.config import IstiodConfig
from runtime.source.istiod.credentials import Credentials
from runtime.source.istiod.node import Node
from runtime.source.istiod.source import IstiodSource
from runtime.source.istiod.wire import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.source.istiod.follower import Follower
from tests.source.istiod.mesh_messages import policy, service, service_name, uid, workload
from tests.source.istiod.xds_server import XdsServer

NODE = Node(name="kmesh-x", namespace="kmesh-system", address="192.0.2.7", cluster_id="c1")
Follow = Callable[..., Follower]


@pytest.fixture
async def server() -> AsyncIterator[XdsServer]:
    """A running server: services a and b, workloads a-1, a-2 and b-1, one policy."""
    made = XdsServer()
    made.put(ADDRESS_TYPE, service_name("a"), service("a", "10.96.0.1"), version="1")
    made.put(ADDRESS_TYPE, service_name("b"), service("b", "10.96.0.2"), version="1")
    for name, address in (("a-1", "10.244.0.1"), ("a-2", "10.244.0.2"), ("b-1", "10.244.0.3")):
        message = workload(name, address, serves=(name[0],))
        made.put(ADDRESS_TYPE, uid(name), message, version="1")
    made.put(AUTHORIZATION_TYPE, "shop/p", policy("p"), version="")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def config(server: XdsServer) -> IstiodConfig:
    """How to reach the server, in plaintext."""
    plaintext = Credentials(root=None)
    return IstiodConfig(address=f"127.0.0.1:{server.port}", node=NODE, credentials=plaintext)


class Waits:
    """Stands in for sleeping between attempts: writes down how long, and is soon back."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0.005)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def follow(config: IstiodConfig, waits: Waits) -> AsyncIterator[Follow]:
    """Make a follower of a new source; keyword arguments change its configuration."""
    made: list[Follower] = []

    def start(*, lookup: Callable[[str], Awaitable[Any]] | None = None, **changes: Any) -> Follower:
        more = {} if lookup is None else {"lookup": lookup}
        source = IstiodSource(replace(config, **changes), sleep=waits, **more)
        made.append(Follower(source))
        return made[-1]

    yield start
    for follower in made:
        await follower.close()
