# SPDX-License-Identifier: Apache-2.0
"""`kmesh run --mode enhanced --node-waypoint auto` on what Istiod sent: one connection, by the kernel and by Envoy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.waypoint.process import started
from tests.launch.conftest import Node, until
from tests.source.envoy.wire import DATA
from tests.waypoint.bookstore import ENDPOINTS_THERE, REVIEWS, V2, V3

pytestmark = [pytest.mark.root, pytest.mark.slow]

BACKEND = Path(__file__).resolve().parents[1] / "waypoint" / "backend.py"
# Two requests on one connection, for two routes; [status, which endpoint, path that it saw] of each.
ASK = """
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], 9080, timeout=20)
for path, headers in (("/a", {"x-user": "jason"}), ("/legacy/a", {})):
    connection.request("GET", path, headers={"Host": "reviews", **headers})
    answer = connection.getresponse()
    body = answer.read()
    told = json.loads(body) if answer.status == 200 else {"at": body.decode(), "path": ""}
    print(json.dumps([answer.status, told["at"], told["path"]]))
"""


@pytest.fixture
def bookshop(node: Node, all_objects: Path, gate_program: Path, tmp_path: Path) -> Iterator[Node]:
    """A node with the bookstore's endpoints, and what Istiod sent in files."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "kmesh-gate").symlink_to(gate_program)
    node.environment |= {"KMESH_OBJECTS": str(all_objects), "KMESH_PROGRAMS": str(programs)}
    for file in DATA.glob("*.pb"):
        shutil.copy(file, node.services)
    for host in sorted({place.split(":")[0] for place in ENDPOINTS_THERE}):
        node.check(["ip", "address", "add", f"{host}/32", "dev", "lo"])
    node.start([sys.executable, str(BACKEND), *ENDPOINTS_THERE])
    yield node
    node.kmesh("cleanup")


def ask(node: Node) -> list[Any]:
    done = node.kmesh("exec", "--", sys.executable, "-c", ASK, REVIEWS)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_the_kernel_does_not_do_is_envoys_and_both_outlive_a_killed_daemon(
    bookshop: Node,
) -> None:
    node = bookshop
    arguments = ("--mode", "enhanced", "--node-waypoint", "auto")
    daemon = node.daemon(*arguments).wait_ready()

    def waypoint() -> Any:
        return node.ask("status")["node_waypoint"]

    until(lambda: waypoint()["accepted"] and not waypoint()["gate"], f"not so:\n{daemon.log}")
    expected = [[200, V2, "/a"], [200, V3, "/modern/a"]]
    until(lambda: ask(node) == expected, f"not so, but {ask(node)}")
    pid = waypoint()["pid"]
    assert "has accepted everything" in node.kmeshctl("status")
    assert "kmesh_node_waypoint_ready 1.0" in node.http("/status/metric", 15020)[1]

    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.wait()
    assert started(pid) is not None
    daemon = node.daemon(*arguments).wait_ready()
    until(lambda: waypoint()["accepted"], "not accepted again")
    assert (waypoint()["adopted"], waypoint()["pid"]) == (True, pid)
    assert ask(node) == expected
    assert daemon.terminate() == 0
    assert started(pid) is None
    assert not node.run_dir.exists()
