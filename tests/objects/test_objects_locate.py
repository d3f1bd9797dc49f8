# SPDX-License-Identifier: Apache-2.0
"""Objects are where the user says, else installed, else in the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import KmeshError
from runtime.objects import locate


def test_what_the_environment_says_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMESH_OBJECTS", str(tmp_path))
    monkeypatch.setenv("KMESH_BPF_SOURCES", str(tmp_path))
    assert locate.objects_dir() == tmp_path
    assert locate.sources_dir() == tmp_path


def test_a_wrong_environment_is_no_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KMESH_OBJECTS", str(tmp_path / "none"))
    with pytest.raises(KmeshError, match="is no directory"):
        locate.objects_dir()


def test_installed_before_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KMESH_OBJECTS", raising=False)
    (tmp_path / "build" / "bpf").mkdir(parents=True)
    monkeypatch.setattr(locate, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(locate, "INSTALLED_OBJECTS", tmp_path / "installed")
    assert locate.objects_dir() == tmp_path / "build" / "bpf"
    (tmp_path / "installed").mkdir()
    assert locate.objects_dir() == tmp_path / "installed"


def test_nowhere_names_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KMESH_OBJECTS", raising=False)
    monkeypatch.setattr(locate, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(locate, "INSTALLED_OBJECTS", tmp_path / "installed")
    with pytest.raises(KmeshError, match="installed") as caught:
        locate.objects_dir()
    assert "make bpf" in (caught.value.hint or "")


def test_object_files_are_in_order(tmp_path: Path) -> None:
    (tmp_path / "compat").mkdir()
    for name in ("b.bpf.o", "a.bpf.o", "note.txt"):
        (tmp_path / "compat" / name).touch()
    assert [path.name for path in locate.object_files(tmp_path, "compat")] == ["a.bpf.o", "b.bpf.o"]
    assert locate.object_files(tmp_path, "enhanced") == ()
