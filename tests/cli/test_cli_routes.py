# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl routes` of a real daemon, fed by a real gRPC server with what a real Istiod sent."""

from __future__ import annotations

import json
import sys

import pytest

from tests.launch.conftest import Node

pytestmark = pytest.mark.root

_ISTIOD = """
import asyncio
from pathlib import Path
from runtime.source.envoy.decode import decode
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.source.envoy.wire import DATA, payloads
from tests.source.istiod.ads.conftest import KINDS
from tests.source.istiod.ads_server import AdsServer

async def main():
    server = AdsServer()
    server.port = 15010
    recorded = DeltaDiscoveryResponse.FromString((DATA / "delta-Address.pb").read_bytes())
    for each in recorded.resources:
        server.put(ADDRESS_TYPE, each.name, each.resource.value, version="1")
    for kind, name in KINDS.items():
        for payload in payloads(name):
            server.put_ads(kind, decode(name, payload)[0], payload)
    await server.start()
    print("up", flush=True)
    while True:
        print(len(server.ads), flush=True)
        await asyncio.sleep(0.2)

asyncio.run(main())
"""
REVIEWS = "bookstore/reviews.bookstore.svc.cluster.local"


def test_each_route_tells_its_place_and_reason_in_compat_mode_too(node: Node) -> None:
    node.start([sys.executable, "-c", _ISTIOD])
    daemon = node.daemon("--routes", "--mode", "compat", source="istiod:127.0.0.1:15010")
    daemon.wait_ready()
    node.until(lambda: node.ask("routes")["known"], "no HTTP came")
    answer = json.loads(
        node.kmeshctl("routes", "--service", "bookstore/reviews", "--output", "json")
    )
    assert answer["serves"] is False
    routes = answer["routes"]
    assert {each["service"] for each in routes} == {REVIEWS}
    assert {each["place"] for each in routes} == {"waypoint"}
    able = [each["route"] for each in routes if each["able"]]
    assert able == ["testers", "testers", "admin", "old-path", "chaos", "gray-release"]
    slow = routes[5]
    why = "the enhanced path does not run: --mode compat was asked for"
    assert slow["why"][:2] == [why, "fault.delay: 2 s for 100 % of the requests"]
    text = node.kmeshctl("routes", "--service", "reviews.bookstore")
    assert "6 of 9 routes could run in the kernel" in text
    assert why in text
    over_http = json.loads(node.http("/debug/config_dump/routes")[1])
    assert [each for each in over_http if each["service"] == REVIEWS] == routes
    tables = json.loads(node.http("/debug/config_dump/route_tables")[1])
    assert [each["resource"] for each in tables] == ["80", "9080", "9090"]
    assert tables[0]["from"] == "istiod 127.0.0.1:15010"
    assert node.ask("status")["sync"]["details"]["http"]["synced"] is True
    assert daemon.terminate() == 0


def test_a_service_that_is_not_there_is_told(node: Node) -> None:
    node.daemon().wait_ready()
    answer = node.ask("routes")
    assert answer["serves"] == (node.ask("status")["mode"] == "enhanced")
    assert bool(answer["why_not"]) != answer["serves"]
    done = node.call([sys.executable, "-m", "runtime.cli.ctl", "routes", "--service", "nowhere"])
    assert done.returncode == 1
    assert "no service 'nowhere'" in done.stderr


def test_without_http_it_says_how_to_have_it(node: Node) -> None:
    node.start([sys.executable, "-c", _ISTIOD])
    daemon = node.daemon("--mode", "compat", source="istiod:127.0.0.1:15010")
    daemon.wait_ready()
    assert "start the daemon with --routes" in node.kmeshctl("routes")
    details = node.ask("status")["sync"]["details"]
    assert (details["connected"], details["http"]) == (True, None)
    assert daemon.terminate() == 0
