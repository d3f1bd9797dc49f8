# SPDX-License-Identifier: Apache-2.0
"""From a control plane over real gRPC into the kernel, in one daemon."""

from __future__ import annotations

import json
import sys

import pytest

from tests.launch.conftest import BACKENDS, Node
from tests.launch.istiod import SOURCE, Istiod
from tests.source.istiod.mesh_messages import service, workload

pytestmark = pytest.mark.root

_ISTIOD = """
import asyncio
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.source.istiod.mesh_messages import service, service_name, uid, workload
from tests.source.istiod.xds_server import XdsServer

async def main():
    server = XdsServer()
    server.port = 15010
    web = service("web", "10.96.0.10", ports={80: 8080})
    server.put(ADDRESS_TYPE, service_name("web"), web, version="1")
    for name, address in (("blue", "10.244.0.11"), ("green", "10.244.0.12")):
        server.put(ADDRESS_TYPE, uid(name), workload(name, address, serves=("web",)), version="1")
    await server.start()
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_services_of_istiod_are_served(node: Node) -> None:
    node.start([sys.executable, "-c", _ISTIOD])
    daemon = node.daemon(source="istiod:127.0.0.1:15010")
    daemon.wait_ready()
    assert set(node.answers(40)) == {"blue", "green"}
    assert node.ask("status")["sync"]["source"] == "istiod"
    assert node.ask("status")["sync"]["details"]["connected"] is True
    assert daemon.terminate() == 0


def test_without_istiod_it_is_not_ready_and_says_why(node: Node) -> None:
    daemon = node.daemon(source="istiod:127.0.0.1:15010")
    node.until(lambda: "bpf Start" in daemon.log, "did not start")
    status, reason = node.http("/debug/ready")
    assert (status, reason) == (503, "not ready: waiting for the first whole picture from istiod\n")
    node.until(lambda: node.ask("status")["sync"]["details"]["last_error"], "no error told")
    assert not json.loads(node.kmeshctl("status", "--output", "json"))["ready"]
    assert daemon.terminate() == 0


def test_a_workloads_own_waypoint_is_told(node: Node) -> None:
    backend = workload("blue", BACKENDS["blue"], serves=("web",))
    backend.workload.waypoint.hostname.namespace = "shop"
    backend.workload.waypoint.hostname.hostname = "wp.shop.svc.cluster.local"
    backend.workload.waypoint.hbone_mtls_port = 15008
    instance = workload("wp-1", BACKENDS["green"], serves=("wp",))
    Istiod(node, service("web", "10.96.0.10"), service("wp"), backend, instance)
    daemon = node.daemon(source=SOURCE).wait_ready()
    asked = ("explain", f"{BACKENDS['blue']}:8080", "--output", "json")
    told = json.loads(node.kmeshctl(*asked))
    (destination,) = told["destinations"]
    assert destination["verdict"] == "waypoint"
    assert destination["waypoint"] == "shop/wp.shop.svc.cluster.local:15008"
    assert destination["endpoints"][0]["workload"]["name"] == "wp-1"
    assert destination["notes"] == ["a workload's own address, and the workload's own waypoint"]
    assert node.ask("status")["waypoints"]["bypassing"] == {}
    assert node.ask("status")["waypoints"]["barred"] == []
    assert "past its waypoint" in node.kmeshctl("explain", f"{BACKENDS['blue']}:9")
    assert daemon.terminate() == 0, daemon.log


def test_ports_that_go_past_a_waypoint_are_listed(node: Node) -> None:
    web = service("web", "10.96.0.10", ports={80: 8080})
    web.service.ports.add(service_port=3306, target_port=3306)  # of no known protocol
    web.service.ports.add(service_port=6379, target_port=6379, app_protocol="TCP")
    web.service.waypoint.hostname.namespace = "shop"
    web.service.waypoint.hostname.hostname = "wp.shop.svc.cluster.local"
    web.service.waypoint.hbone_mtls_port = 15008
    istiod = Istiod(node, web)
    node.daemon(source=SOURCE).wait_ready()
    listed = node.ask("status")["waypoints"]["bypassing"]
    assert listed == {"shop/web.shop.svc.cluster.local": [3306, 6379]}
    assert "past its waypoint on 3306, 6379" in node.kmeshctl("status")
    web.service.ClearField("waypoint")
    istiod.put(web)
    node.until(lambda: not node.ask("status")["waypoints"]["bypassing"], "still listed")
    assert "past its waypoint" not in node.kmeshctl("status")
