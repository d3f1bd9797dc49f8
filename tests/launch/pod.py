# SPDX-License-Identifier: Apache-2.0
"""A network namespace beside a node's, as a pod has one, and commands in it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Self

from tests.launch.conftest import Node

REFUSED = "ConnectionRefusedError"
OUTSIDE = "10.244.0.99"  # somebody who is neither in the mesh nor the node
_numbers = count()

# Serves on an address and port 8080 until it is ended.
SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 8080))
print("up", flush=True)
while True:
    server.accept()[0].close()
"""

_CALL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 8080), 5, (sys.argv[2], 0)).close()
    print("open")
except OSError as error:
    print(type(error).__name__)
"""


class Pod:
    """A network namespace that a link joins to the node's: `near` is its end there."""

    near, address = "10.244.7.0", "10.244.7.1"

    def __init__(self, node: Node, stack: ExitStack) -> None:
        self.node = node
        self.name = f"kmesh-test-{os.getpid()}-pod-{next(_numbers)}"
        self.path = Path("/run/netns") / self.name
        self._run("ip", "netns", "add", self.name)
        stack.callback(self._run, "ip", "netns", "del", self.name)
        link = ["type", "veth", "peer", "pod1", "netns", self.name]
        node.check(["ip", "link", "add", "pod0", *link])
        node.check(["ip", "address", "add", f"{self.near}/31", "dev", "pod0"])
        node.check(["ip", "link", "set", "pod0", "up"])
        node.check(["ip", "address", "replace", f"{OUTSIDE}/32", "dev", "lo"])
        self.ip("address", "add", f"{self.address}/31", "dev", "pod1")
        self.ip("link", "set", "pod1", "up")
        self.ip("link", "set", "lo", "up")
        self.ip("route", "add", "default", "via", self.near)

    def _run(self, *argv: str) -> None:
        subprocess.run(argv, check=True, capture_output=True)

    def ip(self, *arguments: str) -> None:
        self._run("ip", "-n", self.name, *arguments)

    def inside(self, argv: list[str]) -> list[str]:
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def call(self, argv: list[str]) -> str:
        """What a command in the namespace says, whoever governs it."""
        done = subprocess.run(
            self.inside(argv), capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def reached(self, source: str = OUTSIDE) -> str:
        """How a connection to the pod ends, from an address in the node's network namespace."""
        return self.node.check([sys.executable, "-c", _CALL, self.address, source]).strip()


class Command:
    """A command in a node's network namespace that says "up" and goes on; a context manager."""

    def __init__(self, node: Node, argv: list[str]) -> None:
        self._process = subprocess.Popen(
            node.inside(argv), env=node.environment, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


def managed(argv: list[str], *options: str) -> list[str]:
    return [sys.executable, "-m", "runtime.cli.main", "exec", *options, "--", *argv]
