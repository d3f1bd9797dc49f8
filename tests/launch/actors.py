# SPDX-License-Identifier: Apache-2.0
"""Processes inside a node that do as they are told, and end with it: clients and servers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.dataplane.world import Agent
from tests.launch.conftest import Node

_CHECKOUT = Path(__file__).resolve().parents[2]
_HELD = str(Path(__file__).with_name("held.py"))


def talking(node: Node, argv: list[str]) -> Agent:
    """A process that takes commands on its standard input and answers each with a line."""
    process = subprocess.Popen(
        node.inside(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=_CHECKOUT, env=node.environment, start_new_session=True,
    )  # fmt: skip
    node._stack.callback(_end, process)
    return Agent(process)


def _end(process: subprocess.Popen[str]) -> None:
    """A managed one ends with its input, and its `kmesh exec` takes the cgroup away."""
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def managed_client(node: Node) -> Agent:
    """A managed process that holds connections (held.py)."""
    run = [sys.executable, "-m", "runtime.cli.main", "exec", "--", sys.executable, _HELD]
    return talking(node, run)


def server(node: Node, *places: tuple[str, str, int, str]) -> Agent:
    """Servers that answer with their names: kind, address, port, name (held.py)."""
    made = talking(node, [sys.executable, _HELD])
    for place in places:
        made("echo", *place)
    return made


def add_addresses(node: Node, *addresses: str) -> None:
    for address in addresses:
        node.check(["ip", "address", "add", f"{address}/32", "dev", "lo"])
