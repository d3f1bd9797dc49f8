# SPDX-License-Identifier: Apache-2.0
"""Recorded routes on one connection: the kernel and the gate do what they can, the node's Envoy does the rest."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from runtime.kernel.gate import Gate
from runtime.model.http import Endpoints, RouteTable
from runtime.source.envoy.decode import decode
from runtime.source.envoy.messages import ENDPOINTS, ROUTES
from runtime.tables.http_ports import Target
from runtime.waypoint.node import NodeWaypoint
from runtime.waypoint.place import Place
from tests.dataplane.enhanced_stage import Stage
from tests.waypoint.bookstore import EDS, RDS, REVIEWS, V1, V2, V3, recorded, until
from tests.waypoint.conftest import inside

pytestmark = [pytest.mark.root, pytest.mark.slow]
PORT = 9080
NAMES = {V1: "v1", V2: "v2", V3: "v3"}


@pytest.fixture
def shop(stage: Stage) -> Iterator[Stage]:
    """The recorded routes of port 9080 in the kernel's tables, and the endpoints that they lead to."""
    for place, name in NAMES.items():
        host, port = place.split(":")
        stage.world.add_address(host)
        stage.backend("serve", host, name, int(port))
    for name, payload in recorded()[EDS].items():
        made = decode(ENDPOINTS, payload)[1]
        assert isinstance(made, Endpoints)
        stage.ports.set_cluster(name, [Target(str(e.address), e.port) for e in made.endpoints])
    table = decode(ROUTES, recorded()[RDS]["9080"])[1]
    assert isinstance(table, RouteTable)
    why = stage.ports.set_port(REVIEWS, PORT, table)
    assert any("rewrite" in each for each in why.values())
    with inside(stage.world):
        yield stage
    stage.renew()  # while those that go have an address to say so from
    for place in NAMES:
        stage.world._ip("address", "del", place.split(":")[0] + "/32", "dev", "lo")


@pytest.fixture
async def waypoint(shop: Stage, place: Place) -> AsyncIterator[NodeWaypoint]:
    def announce(path: Any) -> None:
        with Gate(shop.place.socket) as gate:
            gate.set_waypoint(path)

    made = NodeWaypoint(place, node="n1", announce=announce)
    made.put(recorded())
    task = asyncio.ensure_future(made.run())
    await until(lambda: made.ready and made.status()["accepted"])
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    announce("")
    made.stop(keep=False)


def ask(stage: Stage, number: int, target: str, headers: str = "") -> list[Any]:
    """[status, who answered, for which target]."""
    found = stage.client("ask", number, target, {"host": "reviews", "headers": headers})
    return list(found[:3])


async def test_one_connection_goes_where_each_request_belongs(
    shop: Stage, waypoint: NodeWaypoint
) -> None:
    before = shop.taken()
    number = shop.client("connect", REVIEWS, PORT)
    tester = "x-user: jason\r\n"
    for _ in range(5):
        assert ask(shop, number, "/size/5", tester) == [200, "v2", "/size/5"]  # in the kernel
        assert ask(shop, number, "/legacy/size/7") == [200, "v3", "/modern/size/7"]  # by Envoy
    assert shop.taken() > before  # all but the first, for which the gate had to connect

    assert waypoint.status()["pid"]
    os.kill(waypoint.status()["pid"], signal.SIGKILL)
    await until(lambda: waypoint.crashes == 1)
    assert ask(shop, number, "/size/5", tester) == [200, "v2", "/size/5"]
    await until(lambda: waypoint.ready)
    again = shop.client("connect", REVIEWS, PORT)
    assert ask(shop, again, "/legacy/size/7") == [200, "v3", "/modern/size/7"]


async def test_a_gate_that_knows_of_none_says_why(shop: Stage, waypoint: NodeWaypoint) -> None:
    number = shop.client("connect", REVIEWS, PORT)
    assert ask(shop, number, "/legacy/size/7")[:2] == [200, "v3"]
    assert waypoint.status()["pid"]
    waypoint._process.stop()
    with Gate(shop.place.socket) as gate:
        gate.set_waypoint("")
    status, reason, _ = ask(shop, shop.client("connect", REVIEWS, PORT), "/legacy/size/7")
    assert status == 503
    assert "waypoint" in reason
