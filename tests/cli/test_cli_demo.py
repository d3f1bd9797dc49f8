# SPDX-License-Identifier: Apache-2.0
"""`make demo` runs green, leaves nothing, and ends cleanly when interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("objects")]


def leftovers() -> set[Path]:
    places = ((Path("/sys/fs/bpf"), "kmesh-demo-*"), (Path("/tmp"), "kmesh-demo-*"))
    return {path for top, pattern in places if top.is_dir() for path in top.glob(pattern)}


def start(checkout: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ci.demo"],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_demo_tells_its_story_and_leaves_nothing(checkout: Path) -> None:
    before = leftovers()
    demo = start(checkout)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_cleans_up(checkout: Path, number: signal.Signals) -> None:
    before = leftovers()
    demo = start(checkout)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "kmesh exec" in line:
            break
    demo.send_signal(number)
    out, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, out
    assert "interrupted" in out
    assert "Traceback" not in out
    assert leftovers() <= before
