# SPDX-License-Identifier: Apache-2.0
"""Acceleration of a real daemon: decided, told, in force for managed commands, gone at the end."""

from __future__ import annotations

import sys

import pytest

from tests.launch.conftest import Node

pytestmark = pytest.mark.root

# Both ends of a connection within one managed command: non-blocking, as Python's time-outs make them.
_PAIR = """
import socket
listener = socket.socket()
listener.settimeout(20)
listener.bind(("127.0.0.1", 0))
listener.listen()
client = socket.socket()
client.settimeout(20)
client.connect(listener.getsockname())
server = listener.accept()[0]
server.settimeout(20)
for size in (100, 200_000, 70, 80):
    client.sendall(bytes([size % 251]) * size)
    got = b""
    while len(got) < size:
        got += server.recv(size)
    assert got == bytes([size % 251]) * size
    server.sendall(b"understood")
    assert client.recv(10) == b"understood"
print("whole")
"""


def test_on_when_wanted(node: Node) -> None:
    daemon = node.daemon("--acceleration").wait_ready()
    assert "same-node acceleration: on" in daemon.log
    told = node.kmesh("exec", "--", sys.executable, "-c", _PAIR)
    assert told.stdout == "whole\n", told.stderr
    facts = node.ask("status")["acceleration"]
    assert facts["on"]
    assert facts["paired"] == 1
    assert facts["shortened"] > 2
    assert "accelerated, 1 connection so far" in node.kmeshctl("status")
    assert (node.pins / "accelerate").is_dir()
    assert daemon.terminate() == 0
    assert not node.pins.exists()


def test_off_when_not_wanted_with_the_reason(node: Node) -> None:
    node.daemon("--no-acceleration").wait_ready()
    told = node.kmesh("exec", "--", sys.executable, "-c", _PAIR)
    assert told.stdout == "whole\n", told.stderr
    assert node.ask("status")["acceleration"] == {
        "on": False,
        "reason": "turned off (--no-acceleration)",
    }
    assert "not accelerated: turned off" in node.kmeshctl("status")
    assert not (node.pins / "accelerate").exists()


def test_by_default_as_the_prober_finds(node: Node) -> None:
    node.daemon("--mode", "compat").wait_ready()
    facts = node.ask("status")["acceleration"]
    assert facts["on"] == (facts["reason"] == "")
    assert facts["on"] or "sockmap.splice.read" in facts["reason"]
    told = node.kmesh("exec", "--", sys.executable, "-c", _PAIR)
    assert told.stdout == "whole\n", told.stderr


def test_a_killed_daemon_is_followed_by_one_that_adopts_or_removes(node: Node) -> None:
    node.daemon("--acceleration").wait_ready().kill()
    assert (node.pins / "accelerate").is_dir()
    second = node.daemon("--acceleration").wait_ready()
    assert node.kmesh("exec", "--", sys.executable, "-c", _PAIR).stdout == "whole\n"
    assert node.ask("status")["acceleration"]["paired"] == 1
    second.kill()
    node.daemon("--no-acceleration").wait_ready()
    assert not (node.pins / "accelerate").exists()


def test_cleanup_takes_it_away(node: Node) -> None:
    node.daemon("--acceleration").wait_ready().kill()
    done = node.kmesh("cleanup")
    assert done.returncode == 0, done.stderr
    assert "acceleration" in done.stdout
    assert not node.pins.exists()
