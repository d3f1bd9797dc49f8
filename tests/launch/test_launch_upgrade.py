# SPDX-License-Identifier: Apache-2.0
"""From one version of Kmesh to another that lays its maps out otherwise, under load, and back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime.tables import enhanced_layout, layout, policy_layout, telemetry_layout
from tests.launch.conftest import Node
from tests.launch.control_plane import SOURCE
from tests.launch.mesh import ECHO, ECHO_PORT, NODE_NAME, Held, start_mesh
from tests.launch.second_version import TABLES, Version, build
from tests.launch.test_launch_telemetry import sums

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def second(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    return build(checkout, tmp_path_factory.mktemp("second") / "kmesh")


def layouts(node: Node, group: str) -> set[str]:
    """The layouts that are pinned, by the head of their digests."""
    return {one.name for one in (node.pins / group).iterdir() if re.fullmatch("[0-9a-f]{16}", one.name)}  # fmt: skip


MODULES = (enhanced_layout, layout, policy_layout, telemetry_layout)


def digests(version: Version | None, mode: str) -> dict[str, set[str]]:
    ours = {module.__name__.rpartition(".")[2]: module for module in MODULES}
    path = "layout" if mode == "compat" else "enhanced_layout"
    groups = {mode: path, "authorize": "policy_layout", "telemetry": "telemetry_layout"}
    return {
        group: {(version.digest(name) if version else str(ours[name].DIGEST))[:16]}
        for group, name in groups.items()
    }


@pytest.mark.parametrize("mode", ["compat", "enhanced"])
def test_an_upgrade_and_a_downgrade_lose_nothing(node: Node, second: Version, mode: str) -> None:
    """Killed under load each time; the second version is started over what the first one left."""
    start_mesh(node)
    more = ("--node", NODE_NAME, "--mode", mode)
    daemon = node.daemon(*more, source=SOURCE).wait_ready()
    held = Held(node)
    node.until(held.refused, "the policy is not enforced")
    held.check()
    held.client("load", ECHO, ECHO_PORT)
    for version in (second, None):
        daemon.kill()
        held.check()  # with nobody there
        how = {"prefix": version.prefix, **version.environment} if version else {}
        daemon = node.daemon(*more, source=SOURCE, **how).wait_ready()
        expected = digests(version, mode)
        assert {group: layouts(node, group) for group in expected} == expected
        held.check()
        assert held.refused()
        held.introduce()
        held.idle = held.client("connect", "tcp", "10.96.0.22", 80, "10.244.0.50")
    answers = held.client("end_load")
    assert set(answers) == {"echo-0 ?"}
    assert answers["echo-0 ?"] > 50
    before = sums(node).get("kmesh_tcp_connections_closed_total", 0)
    held.client("close", held.tcp)  # opened two versions ago
    node.until(lambda: sums(node)["kmesh_tcp_connections_closed_total"] > before, "not told of")
    assert daemon.terminate() == 0, daemon.log
    assert not node.pins.exists()


def test_where_what_sockets_carry_changes_connections_still_introduce_themselves(
    node: Node, checkout: Path, tmp_path: Path
) -> None:
    """By the program that they were given; only what the new version would show of them is lost."""
    third = build(
        checkout, tmp_path / "kmesh", fields={"types.h": {"struct kmesh_peer {": "__u64 pad_3;"}}
    )
    assert third.digest() == layout.DIGEST  # the tables are the same
    start_mesh(node)
    more = ("--node", NODE_NAME, "--mode", "compat")
    daemon = node.daemon(*more, source=SOURCE).wait_ready()
    held = Held(node)
    daemon.kill()
    daemon = node.daemon(
        *more, source=SOURCE, prefix=third.prefix, **third.environment
    ).wait_ready()
    assert held.say(held.tcp) == b"echo-0 hello"
    held.introduce()
    held.idle = held.client("connect", "tcp", "10.96.0.22", 80, "10.244.0.50")
    held.introduce()
    assert held.client("peer", held.idle) == ["10.96.0.22", 80]
    assert daemon.terminate() == 0, daemon.log
    assert not node.pins.exists()


def test_the_fields_that_are_added_change_every_layout(second: Version) -> None:
    """Or the upgrade would be no upgrade."""
    assert len(TABLES) == 3
    for mode in ("compat", "enhanced"):
        mine, theirs = digests(None, mode), digests(second, mode)
        assert all(mine[group].isdisjoint(theirs[group]) for group in mine)
