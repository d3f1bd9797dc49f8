# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl policies` after kill -9: who is guarded is still told, by the kernel's maps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.launch.conftest import Node
from tests.launch.test_launch_authorization import BLUE, GREEN, ONLY_GREEN, OUTSIDE, REFUSED, Mesh

pytestmark = pytest.mark.root


def test_guards_are_told_without_the_daemon(node: Node, tmp_path: Path) -> None:
    mesh = Mesh(node, tmp_path / "policies.json")
    mesh.give(only=ONLY_GREEN)
    daemon = node.daemon(source="istiod:127.0.0.1:15010").wait_ready()
    assert (mesh.call(OUTSIDE, BLUE), mesh.call(GREEN, BLUE)) == (REFUSED, "open")
    told = node.ask("policies")
    daemon.kill()
    answer = json.loads(node.kmeshctl("policies", "--output", "json"))
    assert answer["read_from"] == "kernel maps"
    blue, green = answer["guarded"]
    assert (blue["address"], green["address"]) == (BLUE, GREEN)
    assert blue["refuses_by_default"]
    assert not blue["closed"]
    assert blue["decided"] == told["policies"][0]["hits"] == 1
    assert blue["refused_by_default"] == told["refused_by_default"] >= 1
    assert BLUE in node.kmeshctl("policies")


def test_where_nobody_is_guarded_the_list_is_empty(node: Node) -> None:
    node.daemon().wait_ready().kill()
    assert json.loads(node.kmeshctl("policies", "--output", "json"))["guarded"] == []
