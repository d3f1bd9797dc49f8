# SPDX-License-Identifier: Apache-2.0
"""What `kmeshctl status` says of a gate that is at a limit."""

from __future__ import annotations

from runtime.cli.ctl_http import gate_lines


def test_nothing_is_said_of_a_gate_with_room() -> None:
    assert not list(gate_lines({"waiting": 0, "ended_early": 0, "pools_full": 0, "spaces": 3}))
    assert not list(gate_lines({"error": "no gate"}))


def test_each_limit_has_its_line() -> None:
    facts = {"waiting": 1, "ended_early": 2, "pools_full": 3}
    assert [text for _, text in gate_lines(facts)] == [
        "1 request waiting until there is room for a connection",
        "2 connections to endpoints ended early, to make room for others",
        "too many endpoints in use for the kernel, 3 times: requests to them pass to the gate",
    ]
