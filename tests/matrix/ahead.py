# SPDX-License-Identifier: Apache-2.0
"""Kernels are booted while other tests run: started once what is to be tried is known, asked for last.

One that is emulated takes one CPU for minutes, and most tests take the other one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

EMULATOR = "qemu-system-x86_64"
MODULE = "tests/matrix/test_matrix_kernels.py"
_PATIENCE = 3500.0  # seconds, for both
_CHECKOUT = Path(__file__).resolve().parents[2]
_running = pytest.StashKey["subprocess.Popen[bytes]"]()


def wait_for(name: str, directory: Path) -> dict[str, Any]:
    """The row of a kernel that boots since the tests began.

    Raises:
        AssertionError: there will be none; it says why.
    """
    from ci.matrix.ends import FAILED, place  # not for each run of a test in an emulated kernel

    deadline, row, failed = time.monotonic() + _PATIENCE, place(directory, name), directory / FAILED
    while not row.exists():
        assert not failed.exists(), failed.read_text()
        assert time.monotonic() < deadline, f"no end of the {name} kernel's tests"
        time.sleep(0.2)
    found: dict[str, Any] = json.loads(row.read_text())
    return found


def directory_of(base: Path) -> Path:
    """Where the rows of a run stand, whose directory for temporary files is this."""
    return base / "booted"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.nodeid.startswith(MODULE))  # the others stay as they are


def pytest_collection_finish(session: pytest.Session) -> None:
    _begin(session.config, (item.nodeid for item in session.items))


def _begin(config: pytest.Config, names: Iterable[str]) -> None:
    wanted = any(name.startswith(MODULE) for name in names)
    if not wanted or _running in config.stash or config.option.collectonly:
        return
    if not shutil.which(EMULATOR):
        return
    directory = directory_of(config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    directory.mkdir()
    with (directory / "log").open("wb") as log:
        config.stash[_running] = subprocess.Popen(
            [sys.executable, "-m", "ci.matrix.ends", str(directory)],
            cwd=_CHECKOUT,
            stdin=subprocess.PIPE,  # whose end it takes for ours
            stdout=log,
            stderr=log,
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    if process := config.stash.get(_running, None):
        process.communicate()
