# SPDX-License-Identifier: Apache-2.0
"""What `kmesh run` makes of its options."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from runtime.cli.run import run
from runtime.launch.config import Config


def told(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Config:
    seen: list[Any] = []
    monkeypatch.setattr("runtime.launch.lifecycle.run_daemon", seen.append)
    result = CliRunner().invoke(run, ["--source", "files:/tmp", *arguments])
    assert result.exit_code == 0, result.output
    (config,) = seen
    assert isinstance(config, Config)
    return config


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("15008:15019", ((15008, 15019),)),
        ("15008:1,15009:2", ((15008, 1), (15009, 2))),
        ("none", ()),
    ],
)
def test_waypoint_ports(
    monkeypatch: pytest.MonkeyPatch, text: str, pairs: tuple[tuple[int, int], ...]
) -> None:
    assert told(monkeypatch, "--waypoint-ports", text).waypoint_ports == pairs


def test_waypoint_ports_are_istios_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch).waypoint_ports == ((15008, 15019),)


@pytest.mark.parametrize("text", ["15008", "0:1", "1:70000", "a:b", "1:2,1:3", "1:2:3"])
def test_wrong_waypoint_ports_are_refused(text: str) -> None:
    result = CliRunner().invoke(run, ["--source", "files:/tmp", "--waypoint-ports", text])
    assert result.exit_code == 2
    assert "--waypoint-ports" in result.output
