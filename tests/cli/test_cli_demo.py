# SPDX-License-Identifier: Apache-2.0
"""`make demo`: both of its stories hold, leave nothing, and end cleanly when interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("objects")]


def leftovers() -> set[Path]:
    tops = ("/sys/fs/bpf", "/tmp", "/run/netns")
    places = [(Path(top), "kmesh-demo-*") for top in tops]
    return {path for top, pattern in places if top.is_dir() for path in top.glob(pattern)}


def start(checkout: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ci.demo", *arguments],
        cwd=checkout,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if "json" in arguments else subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def enhanced(all_objects: Path, gate_program: Path, tmp_path: Path) -> dict[str, str]:
    """The environment in which the enhanced path is there, whatever `make bpf` makes."""
    (tmp_path / "kmesh-gate").symlink_to(gate_program)
    return {"KMESH_OBJECTS": str(all_objects), "KMESH_PROGRAMS": str(tmp_path)}


def test_the_demo_tells_its_story_and_leaves_nothing(checkout: Path) -> None:
    before = leftovers()
    demo = start(checkout, "--path", "compat")
    out, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, out
    assert "✗" not in out
    assert "both answered http://10.96.0.10/" in out
    assert "both answered http://[fd00:10:96::10]/" in out
    for shown in (
        "all pods of reviews answer",
        "the other is refused; both are counted",
        "both answered, in the service's name",
        "Envoy routed it by the cart's own address",
        "accesslog: ",
        "kmesh_istiod_connected 1.0",
        "kill -9 ",
        "not one request failed",
    ):
        assert shown in out
    assert "no program, no map, no file is left" in out
    assert "\033" not in out
    assert "Traceback" not in out
    assert leftovers() <= before


def test_requests_of_one_connection_are_told_one_by_one(
    checkout: Path, enhanced: dict[str, str]
) -> None:
    before = leftovers()
    demo = start(checkout, "--path", "enhanced", "--output", "json", **enhanced)
    out, told = demo.communicate(timeout=240)
    assert demo.returncode == 0, told
    seen = json.loads(out)
    answered = [row["answered_by"] for row in seen["requests"]]
    assert answered[:4] == ["shop", "reviews", "reviews-v2", "orders"]
    assert answered[-3:] == ["301", "503", "orders"]
    by = [row["served_by"] for row in seen["requests"]]
    assert "kernel" in by
    assert by[-3:] == ["gate"] * 3
    assert seen["requests"][-1]["body_bytes"] == 1 << 20
    assert set(seen["comparison"]["us"]) >= {"direct", "routed"}
    assert all(row["us"] > 0 and row["route"].startswith("demo/shop/") for row in seen["requests"])
    assert seen["near"].get("past_tcp") == 500, seen["near"]
    assert "How fast" in told
    assert "past TCP" in told
    assert "\033" not in told
    assert leftovers() <= before


def test_where_the_enhanced_path_does_not_run_the_demo_says_why(
    checkout: Path, tmp_path: Path
) -> None:
    environment = {"KMESH_OBJECTS": str(tmp_path)}
    demo = start(checkout, "--path", "enhanced", **environment)
    out, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert "the enhanced path does not run here: objects." in out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("path", "until", "number"),
    [
        ("compat", "kmesh exec", signal.SIGINT),
        ("compat", "kmesh exec", signal.SIGTERM),
        ("enhanced", "One keep-", signal.SIGTERM),
    ],
)
def test_an_interrupted_demo_cleans_up(
    checkout: Path, enhanced: dict[str, str], number: signal.Signals, path: str, until: str
) -> None:
    before = leftovers()
    demo = start(checkout, "--path", path, **enhanced)
    assert demo.stdout is not None
    for line in demo.stdout:
        if until in line:
            break
    demo.send_signal(number)
    out, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, out
    assert "interrupted" in out
    assert "Traceback" not in out
    assert leftovers() <= before


def test_help_tells_what_the_demo_shows_and_plays_nothing(checkout: Path) -> None:
    told, _ = start(checkout, "--help").communicate(timeout=60)
    assert "Show what Kmesh does" in told
    assert "--path [auto|enhanced|compat]" in told
    assert start(checkout, "--path", "none").wait(timeout=60) == 2
