# SPDX-License-Identifier: Apache-2.0
"""`kmesh run --responses`: chosen, told, changed from one daemon to the next on open connections, gone at the end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runtime.bpf.attach import AttachType, attached_to_map
from runtime.bpf.maps import BpfMap
from tests.launch.conftest import Node, until
from tests.launch.test_launch_enhanced import Mesh, mesh  # noqa: F401 - a fixture

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


def _goes_home(node: Node) -> bool:
    """Whether new connections to endpoints get a program, as the kernel has it."""
    (pin,) = (node.pins / "enhanced" / "sockets").glob("upstreams*")
    upstreams = BpfMap.pinned(pin)
    program = attached_to_map(upstreams.fd, AttachType.SK_SKB_STREAM_VERDICT)
    upstreams.close()
    if program is not None:
        os.close(program)
    return program is not None


def test_from_one_way_to_the_other_and_back(mesh: Mesh) -> None:  # noqa: F811 - the fixture
    """The daemon is killed in between, and one connection is asked through all of it."""
    client = mesh.client()
    number = client("connect", "10.96.0.10")
    assert client("ask", number, "/green") == [200, "green"]
    told = mesh.status()["responses"]
    assert told["wanted"] == "auto"
    assert (told["way"] == "kernel") == (not told["reasons"]) == _goes_home(mesh.node)
    assert f"responses:   {told['told']}" in mesh.node.kmeshctl("status")
    assert mesh.node.ask("probe")["responses"] == {
        key: told[key] for key in ("way", "reasons", "remedy")
    }

    mesh.daemon.kill()
    mesh.start("--responses", "kernel")
    told = mesh.status()["responses"]
    assert (told["wanted"], told["way"]) == ("kernel", "kernel"), told
    assert _goes_home(mesh.node)
    assert bool(told["reasons"]) == ("take care" in mesh.daemon.log)
    assert f"responses: {told['told']}" in mesh.daemon.log
    for _ in range(5):
        assert client("ask", number, "/green") == [200, "green"]
        assert client("try", "10.96.0.10", "/") == [200, "blue"]

    mesh.daemon.kill()
    assert client("ask", number, "/green") == [200, "green"]
    mesh.start("--responses", "gate")
    assert "from now on by the gate" in mesh.daemon.log
    assert mesh.status()["responses"]["told"] == "by the gate: --responses gate was asked for"
    assert not _goes_home(mesh.node)
    assert client("ask", number, "/green") == [200, "green"]


def test_a_gate_that_dies_and_the_end(mesh: Mesh) -> None:  # noqa: F811 - the fixture
    mesh.daemon.kill()
    mesh.start("--responses", "kernel")
    client = mesh.client()
    assert client("try", "10.96.0.10", "/green") == [200, "green"]
    os.kill(mesh.gate_pid(), signal.SIGKILL)
    until(lambda: client("try", "10.96.0.10", "/green") == [200, "green"], "no gate in its place")
    assert mesh.status()["responses"]["way"] == "kernel"
    assert _goes_home(mesh.node)
    assert mesh.daemon.terminate() == 0
    assert not mesh.node.pins.exists() or not list(mesh.node.pins.iterdir())


def test_where_it_cannot_be_had_the_gate_serves(
    mesh: Mesh,  # noqa: F811 - the fixture
    tmp_path: Path,
    all_objects: Path,
) -> None:
    objects = tmp_path / "objects"
    objects.mkdir()
    for group in all_objects.iterdir():
        if group.name != "home":
            (objects / group.name).symlink_to(group)
    mesh.daemon.kill()
    mesh.node.environment["KMESH_OBJECTS"] = str(objects)
    mesh.start("--responses", "kernel")
    told = mesh.status()["responses"]
    assert (told["way"], told["reasons"]) == ("gate", [f"no home/home.bpf.o in {objects}"])
    assert "--responses kernel cannot be had here, by the gate" in mesh.daemon.log
    assert not _goes_home(mesh.node)
    assert mesh.client()("try", "10.96.0.10", "/green") == [200, "green"]
