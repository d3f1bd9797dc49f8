# SPDX-License-Identifier: Apache-2.0
"""The battery's objects, one check by itself, and what a check must not leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.probe.behaviour import run_battery
from runtime.probe.scratch import cgroup2_mounts
from runtime.probe.verdict import Finding
from tests.probe.behaviour.battery_support import BUDGET, RunOne, kernel_objects, places


@pytest.fixture(scope="session")
def probes(objects: Path) -> Path:
    """The compiled objects, those of the battery among them."""
    assert any((objects / "probe").glob("*.bpf.o")), "no objects of the battery: run `make bpf`"
    return objects


@pytest.fixture(scope="session")
def run_one() -> RunOne:
    def run(objects: Path, capability: str) -> Finding:
        (found,) = run_battery(objects, budget_seconds=BUDGET, only=frozenset({capability}))
        return found

    return run


@pytest.fixture(scope="session")
def in_python(checkout: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code of this checkout by another command: `setpriv ...`, `unshare ...`."""

    def run(code: str, *prefix: str) -> subprocess.CompletedProcess[str]:
        argv = [*prefix, sys.executable, "-c", code]
        env = {**os.environ, "PYTHONPATH": str(checkout)}
        return subprocess.run(argv, capture_output=True, text=True, env=env, check=False)

    return run


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail when a test leaves programs, maps, cgroups, mounts, namespaces, children or descriptors."""

    def own() -> dict[str, object]:
        return {
            "mounts": cgroup2_mounts(),
            "descriptors": sorted(item.name for item in Path("/proc/self/fd").iterdir()),
            "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
            "cgroup": Path("/proc/self/cgroup").read_text(),
            "namespaces": [Path(f"/proc/self/ns/{name}").readlink() for name in ("net", "mnt")],
        }

    mine, others = own(), kernel_objects() | places()
    yield
    assert own() == mine
    # The kernel frees maps and programs a little after their last user is gone.
    deadline = time.monotonic() + 20
    while (new := (kernel_objects() | places()) - others) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not new
