# SPDX-License-Identifier: Apache-2.0
"""The node's waypoint in `kmeshctl status`."""

from __future__ import annotations

from typing import Any

from runtime.cli.status_waypoint import node_waypoint_lines

SERVES: dict[str, Any] = {
    "on": True,
    "ready": True,
    "version": "1.40.0",
    "pid": 7,
    "connected": True,
    "accepted": True,
    "nacks": {"cluster": 0, "listener": 0},
    "crashes": 0,
    "trouble": "",
    "gate": "",
    "caution": "",
    "refused": {},
}


def test_one_line_where_all_is_well() -> None:
    assert list(node_waypoint_lines(SERVES)) == [
        ("waypoint", "of the node: Envoy 1.40.0 (process 7), serves, has accepted everything")
    ]


def test_why_there_is_none() -> None:
    off = {"on": False, "reason": "turned off (--node-waypoint)"}
    (line,) = node_waypoint_lines(off)
    assert line == ("waypoint", "of the node: off (turned off (--node-waypoint))")


def test_what_is_wrong_is_named() -> None:
    facts = SERVES | {
        "ready": False,
        "connected": False,
        "crashes": 2,
        "nacks": {"cluster": 1, "listener": 2},
        "trouble": "Envoy was ended by SIGKILL",
        "gate": "no gate at x",
        "refused": {"listener l": "no such filter"},
    }
    (_, first), *rest = node_waypoint_lines(facts)
    assert "does not serve, is not connected, refused 3 responses so far, ended 2 times" in first
    assert [text for _, text in rest] == [
        "Envoy was ended by SIGKILL",
        "no gate at x",
        "refuses listener l: no such filter",
    ]
