# SPDX-License-Identifier: Apache-2.0
"""Kernels that boot beside other tests, without the boots: who waits for them, and who ends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ci.matrix import ends
from tests.matrix.ahead import MODULE, pytest_collection_modifyitems, wait_for


def test_a_row_is_there_once_it_is_whole(tmp_path: Path) -> None:
    ends._write(ends.place(tmp_path, "newest"), json.dumps({"release": "6.1"}))
    assert wait_for("newest", tmp_path) == {"release": "6.1"}
    assert [path.name for path in tmp_path.iterdir()] == ["newest.json"]


def test_who_waits_is_told_why_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(_kernels: object) -> None:
        raise RuntimeError("no mirror answers")

    monkeypatch.setattr(ends, "fetch", fetch)
    monkeypatch.setattr(ends, "compile_tree", lambda *_words, **_more: None)
    monkeypatch.setattr(ends, "_end_with_starter", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_words: None)
    monkeypatch.setattr("sys.argv", ["ends", str(tmp_path)])
    with pytest.raises(RuntimeError):
        ends.main()
    with pytest.raises(AssertionError, match="no mirror answers"):
        wait_for("oldest", tmp_path)


def test_it_ends_when_its_starter_is_gone(checkout: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "ci.matrix.ends", str(tmp_path)],
        cwd=checkout,
        env={**os.environ, "TMPDIR": str(scratch), "KMESH_CACHE": str(tmp_path / "cache")},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    process.communicate()
    assert process.returncode == 1
    assert "SystemExit" in (tmp_path / ends.FAILED).read_text()
    assert list(scratch.iterdir()) == []


class Item:
    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid


def test_they_are_asked_for_last() -> None:
    names = [f"{MODULE}::a", "tests/plan/b.py::c", "tests/a.py::d"]
    items = [Item(name) for name in names]
    pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    assert [item.nodeid for item in items] == [*names[1:], names[0]]
