# SPDX-License-Identifier: Apache-2.0
"""Policies from a control plane over real gRPC, enforced by the daemon, told by kmeshctl."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.launch.conftest import BACKENDS, Node

pytestmark = pytest.mark.root

# Serves two workloads of namespace "shop", and the policies that a file names.
_ISTIOD = """
import asyncio, pathlib, sys
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.source.istiod.mesh_messages import uid, workload
from tests.source.istiod.policy_file import serve
from tests.source.istiod.xds_server import XdsServer

async def main():
    server = XdsServer()
    server.port = 15010
    for name, address in (("blue", "10.244.0.11"), ("green", "10.244.0.12")):
        served = workload(name, address, service_account=name)
        server.put(ADDRESS_TYPE, uid(name), served, version="1")
    await serve(server, pathlib.Path(sys.argv[1]))

asyncio.run(main())
"""

# Connects to an address and port, from an address; prints how that ended.
_CALL = """
import socket, sys
try:
    socket.create_connection((sys.argv[2], 8080), 5, (sys.argv[1], 0)).close()
    print("open")
except OSError as error:
    print(type(error).__name__)
"""

OUTSIDE, REFUSED = "10.244.0.99", "ConnectionRefusedError"
BLUE, GREEN = BACKENDS["blue"], BACKENDS["green"]


def match(**fields: object) -> list[object]:
    return [{"rules": [{"matches": [fields]}]}]


ONLY_GREEN = {
    "scope": "NAMESPACE",
    "action": "ALLOW",
    "groups": match(principals=[{"suffix": "/ns/shop/sa/green"}]),
}
NOT_FROM_OUTSIDE = {
    "scope": "NAMESPACE",
    "action": "DENY",
    "groups": match(not_namespaces=[{"exact": "shop"}]),
}


class Mesh:
    """A node, a control plane, and a client outside of the mesh."""

    def __init__(self, node: Node, given: Path) -> None:
        self.node, self._given = node, given
        self.give()
        node.start([sys.executable, "-c", _ISTIOD, str(given)])
        node.check(["ip", "address", "add", f"{OUTSIDE}/32", "dev", "lo"])

    def give(self, **policies: object) -> None:
        draft = self._given.with_suffix(".new")
        draft.write_text(json.dumps(policies))
        draft.replace(self._given)

    def call(self, source: str, target: str) -> str:
        return self.node.check([sys.executable, "-c", _CALL, source, target]).strip()

    def until(self, source: str, target: str, outcome: str) -> None:
        self.node.until(lambda: self.call(source, target) == outcome, f"never {outcome}")


@pytest.fixture
def mesh(node: Node, tmp_path: Path) -> Mesh:
    return Mesh(node, tmp_path / "policies.json")


def test_policies_of_istiod_are_enforced_and_told(mesh: Mesh) -> None:
    node = mesh.node
    daemon = node.daemon(source="istiod:127.0.0.1:15010").wait_ready()
    assert mesh.call(OUTSIDE, BLUE) == "open"
    assert not (node.pins / "authorize").exists()
    mesh.give(only=ONLY_GREEN, http={"scope": "NAMESPACE", "groups": match()})
    mesh.until(OUTSIDE, BLUE, REFUSED)
    assert mesh.call(GREEN, BLUE) == "open"
    assert mesh.call(BLUE, GREEN) == REFUSED
    told = node.ask("policies")
    by_name = {each["name"]: each for each in told["policies"]}
    assert by_name["only"]["decided"] == "kernel"
    assert by_name["only"]["guards"] == [BLUE, GREEN]
    assert by_name["only"]["hits"] == 1
    assert (by_name["http"]["decided"], by_name["http"]["hits"]) == ("waypoint", 0)
    assert told["refused_by_default"] >= 2
    assert "only" in node.kmeshctl("policies")
    assert node.ask("status")["counts"]["policies"] == 2
    mesh.give()
    mesh.until(OUTSIDE, BLUE, "open")
    assert node.ask("policies")["policies"] == []
    assert daemon.terminate() == 0, daemon.log
    assert not node.pins.exists()


def test_policies_hold_while_the_daemon_is_dead_and_the_next_one_takes_them_over(
    mesh: Mesh,
) -> None:
    node = mesh.node
    mesh.give(inside=NOT_FROM_OUTSIDE)
    first = node.daemon(source="istiod:127.0.0.1:15010").wait_ready()
    assert (mesh.call(OUTSIDE, BLUE), mesh.call(GREEN, BLUE)) == (REFUSED, "open")
    first.kill()
    assert (mesh.call(OUTSIDE, BLUE), mesh.call(GREEN, BLUE)) == (REFUSED, "open")
    mesh.give(only=ONLY_GREEN)  # while nobody listens
    second = node.daemon(source="istiod:127.0.0.1:15010").wait_ready()
    assert (mesh.call(BLUE, GREEN), mesh.call(GREEN, BLUE)) == (REFUSED, "open")
    second.kill()
    assert node.kmesh("cleanup").returncode == 0
    assert not node.pins.exists()
    assert mesh.call(OUTSIDE, BLUE) == "open"


def test_enforcement_is_switched_off_and_on_and_a_restart_enforces(mesh: Mesh) -> None:
    node = mesh.node
    mesh.give(inside=NOT_FROM_OUTSIDE)
    daemon = node.daemon(source="istiod:127.0.0.1:15010").wait_ready()
    assert mesh.call(OUTSIDE, BLUE) == REFUSED
    # What anyone in the node's network reaches tells things, and changes no policy.
    post = (
        "curl -s -o /dev/null -w '%{http_code}' -X POST http://127.0.0.1:15200/authz?enable=false"
    )
    assert node.check(["sh", "-c", post]) in ("404", "405")
    assert json.loads(node.http("/authz")[1])["enforced"]
    told = node.ask("authz", "disable")
    assert (told["enforced"], told["policies"], told["guarded"]) == (False, 1, 0)
    assert mesh.call(OUTSIDE, BLUE) == "open"
    assert "ERROR authorization: POLICIES ARE NOT ENFORCED ANY MORE" in daemon.log
    assert "NOT ENFORCED since" in node.kmeshctl("status")
    assert "NOT ENFORCED in this node's kernel" in node.kmeshctl("policies")
    assert "kmesh_authorization_enforced 0.0" in node.http("/status/metric", 15020)[1]
    assert node.http("/debug/ready")[0] == 200
    mesh.give(only=ONLY_GREEN)  # what changes meanwhile holds at once afterwards
    node.until(lambda: "only" in node.kmeshctl("policies"), "the policy does not come")
    assert mesh.call(BLUE, GREEN) == "open"
    assert node.ask("authz", "enable")["enforced"]
    assert (mesh.call(BLUE, GREEN), mesh.call(GREEN, BLUE)) == (REFUSED, "open")
    assert "kmesh_authorization_enforced 1.0" in node.http("/status/metric", 15020)[1]
    node.ask("authz", "disable")
    assert mesh.call(OUTSIDE, BLUE) == "open"
    daemon.kill()
    node.daemon(source="istiod:127.0.0.1:15010").wait_ready()
    assert mesh.call(OUTSIDE, BLUE) == REFUSED
    assert node.ask("authz", "status")["enforced"]


def test_a_daemon_that_stops_leaves_no_policy_behind(mesh: Mesh) -> None:
    mesh.give(inside=NOT_FROM_OUTSIDE)
    daemon = mesh.node.daemon(source="istiod:127.0.0.1:15010").wait_ready()
    assert mesh.call(OUTSIDE, BLUE) == REFUSED
    assert daemon.terminate() == 0, daemon.log
    assert mesh.call(OUTSIDE, BLUE) == "open"


def test_policies_that_cannot_be_enforced_are_told_loudly(
    mesh: Mesh, objects: Path, tmp_path: Path
) -> None:
    lacking = tmp_path / "objects"
    shutil.copytree(objects, lacking, ignore=shutil.ignore_patterns("authorize"))
    mesh.give(inside=NOT_FROM_OUTSIDE)
    node = mesh.node
    daemon = node.daemon(source="istiod:127.0.0.1:15010", KMESH_OBJECTS=str(lacking))
    node.until(lambda: "controller Start successful" in daemon.log, "never served")
    status, body = node.http("/debug/ready")
    assert (status, "NOT ENFORCED: 1 policy" in body) == (503, True), body
    assert "ERROR authorization: NOT ENFORCED: 1 policy" in daemon.log
    assert "no: NOT ENFORCED: 1 policy" in node.kmeshctl("status")
    assert mesh.call(OUTSIDE, BLUE) == "open"
    shutil.copytree(objects / "authorize", lacking / "authorize")
    node.until(lambda: node.http("/debug/ready")[0] == 200, "never mended")
    assert mesh.call(OUTSIDE, BLUE) == REFUSED
    assert daemon.terminate() == 0, daemon.log
    assert not node.pins.exists()
