# SPDX-License-Identifier: Apache-2.0
"""The node's waypoint in the daemon: from a control plane to a real Envoy, and the gate that is told of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.control.ahead import Ahead
from runtime.errors import KmeshError
from runtime.launch.sources import find_source
from runtime.launch.waypoint import WaypointPart, clear
from runtime.waypoint.process import started
from tests.dataplane.world import World
from tests.launch.conftest import PATIENCE, Node
from tests.source.envoy.wire import DATA
from tests.waypoint.bookstore import REVIEWS, request
from tests.waypoint.conftest import bookstore  # noqa: F401 - a fixture

pytestmark = pytest.mark.root


class Gate:
    """Stands in for the gate: takes commands, and says yes."""

    def __init__(self, path: Path) -> None:
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                with peer:
                    self.heard.append(peer.recv(4096).decode())
                    peer.send(b"ok")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def run_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kmesh-test-"))
    yield path
    clear(path)
    shutil.rmtree(path)


@pytest.fixture
def gate(run_dir: Path) -> Iterator[Gate]:
    made = Gate(run_dir / "gate.sock")
    yield made
    made.close()


Control = Callable[[str], None]


@pytest.fixture
def control(bookstore: World, run_dir: Path) -> Iterator[Control]:  # noqa: F811
    """A control plane at istiod.sock; call it to have it change a route."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.waypoint.istiod", str(run_dir / "istiod.sock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "up\n"

    def change(prefix: str) -> None:
        assert process.stdin
        process.stdin.write(prefix + "\n")
        process.stdin.flush()

    yield change
    process.kill()
    process.communicate()


class Part:
    """A waypoint with its source, as a daemon has them."""

    def __init__(self, run_dir: Path, source: str = "") -> None:
        source = source or f"istiod:unix:{run_dir / 'istiod.sock'}"
        self.part = WaypointPart("auto", source=source, exempt=True)
        self.source = Ahead(find_source(source).open)
        self.part.start(self.source, run_dir=run_dir, node="n1")

    def stop(self, *, keep: bool) -> None:
        self.part.stop(keep=keep)
        self.source.close()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def legacy(run_dir: Path) -> str:
    listen = run_dir / "node-waypoint" / "listen.sock"
    reply = request(listen, REVIEWS, 9080, "/legacy/a", "reviews")
    return str(reply.told["path"]) if reply.status == 200 else f"{reply.status}"


@pytest.mark.slow
def test_what_istiod_says_reaches_envoy_and_the_gate_knows_where(
    control: Control, run_dir: Path, gate: Gate
) -> None:
    first = Part(run_dir)
    try:
        until(lambda: first.part.status()["ready"] and first.part.status()["accepted"])
        status = first.part.status()
        assert "let pass" in status["caution"]
        assert legacy(run_dir) == "/modern/a"
        listen = run_dir / "node-waypoint" / "listen.sock"
        until(lambda: gate.heard)
        assert set(gate.heard) == {f"waypoint unix:{listen}"}
        control("/newest/")
        until(lambda: legacy(run_dir) == "/newest/a")
    finally:
        first.stop(keep=True)
    assert legacy(run_dir) == "/newest/a"  # without a daemon

    second = Part(run_dir)
    try:
        until(lambda: second.part.status()["accepted"])
        assert (second.part.status()["adopted"], second.part.status()["pid"]) == (
            True,
            status["pid"],
        )
        control("/last/")
        until(lambda: legacy(run_dir) == "/last/a")
    finally:
        second.stop(keep=False)
    assert gate.heard[-1] == "waypoint unix:"
    assert started(status["pid"]) is None
    assert not (run_dir / "node-waypoint").exists()


@pytest.mark.slow
def test_recorded_responses_in_files_will_do(bookstore: World, run_dir: Path) -> None:  # noqa: F811
    files = run_dir / "files"
    shutil.copytree(DATA, files)
    made = Part(run_dir, f"files:{files}")
    try:
        until(lambda: made.part.status()["accepted"] and made.part.status()["ready"])
        assert legacy(run_dir) == "/modern/a"
    finally:
        made.stop(keep=False)


@pytest.mark.slow
def test_cleaning_up_ends_what_a_killed_daemon_left(control: Control, run_dir: Path) -> None:
    left = Part(run_dir)
    until(lambda: left.part.status()["ready"])
    assert "no gate at" in left.part.status()["gate"]
    pid = left.part.status()["pid"]
    left.stop(keep=True)
    assert started(pid) is not None
    assert clear(run_dir) == [str(run_dir / "node-waypoint")]
    assert started(pid) is None
    assert clear(run_dir) == []


def test_only_istiod_has_what_an_envoy_takes(tmp_path: Path) -> None:
    assert "it takes Istiod" in WaypointPart("auto", source="kubernetes").status()["reason"]
    with pytest.raises(KmeshError, match="it takes Istiod"):
        WaypointPart("external", source="kubernetes")
    with pytest.raises(KmeshError, match="no program at"):
        WaypointPart(str(tmp_path / "envoy"), source="istiod")


def test_a_daemon_says_why_there_is_none(node: Node) -> None:
    daemon = node.daemon("--node-waypoint", "auto", "--mode", "compat").wait_ready()
    facts = node.ask("status")["node_waypoint"]
    assert facts["on"] is False
    assert "the compat path has no gate" in facts["reason"]
    assert "of the node: off (the compat path" in node.kmeshctl("status")
    assert daemon.terminate() == 0
    refused = node.daemon("--node-waypoint", str(Path(os.devnull)), source="istiod:127.0.0.1:1")
    assert refused.wait() != 0
    assert "no program at /dev/null" in refused.log
