# SPDX-License-Identifier: Apache-2.0
"""The run directory: one instance, private files, nothing left."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.control.rundir import RunDir, State
from runtime.errors import KmeshError


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def test_a_second_instance_is_refused_and_told_of_the_first(rundir: RunDir) -> None:
    rundir.lock()
    with pytest.raises(KmeshError, match=f"process {os.getpid()},"):
        RunDir(rundir.path).lock()


def test_the_lock_ends_with_its_process(rundir: RunDir) -> None:
    code = "import sys; from pathlib import Path; from runtime.control.rundir import RunDir; RunDir(Path(sys.argv[1])).lock()"
    subprocess.run([sys.executable, "-c", code, str(rundir.path)], check=True)
    rundir.lock()


def test_files_are_the_owners_alone(rundir: RunDir) -> None:
    rundir.lock()
    rundir.write(State(pid=1))
    modes = {path.name: path.stat().st_mode & 0o777 for path in rundir.path.iterdir()}
    assert modes == {"state.json": 0o600, "kmesh.lock": 0o600}
    assert rundir.path.stat().st_mode & 0o777 == 0o700


def test_the_note_is_read_back(rundir: RunDir) -> None:
    rundir.make()
    state = State(pid=7, pins="/p", mode="compat", cgroups=["/c"])
    rundir.write(state)
    assert rundir.read() == state


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"other": 1}',
        '{"pins": 5}',
        '{"cgroups": "/a"}',
        '{"cgroups": [1]}',
        "[" * 9999,
    ],
    ids=range(8),
)
def test_a_note_that_cannot_be_read_is_none(rundir: RunDir, text: str) -> None:
    rundir.make()
    (rundir.path / "state.json").write_text(text)
    assert rundir.read() is None


def test_clearing_removes_all_and_may_be_repeated(rundir: RunDir) -> None:
    rundir.lock()
    rundir.write(State())
    (rundir.compiled / "compat").mkdir(parents=True)
    assert str(rundir.path) in rundir.clear()
    assert not rundir.path.exists()
    assert rundir.clear() == []


def test_an_instance_without_the_lock_removes_nothing(rundir: RunDir) -> None:
    rundir.lock()
    rundir.write(State())
    assert RunDir(rundir.path).clear() == []
    assert rundir.read() == State()


def test_somebody_elses_file_is_left_alone(rundir: RunDir) -> None:
    rundir.lock()
    (rundir.path / "mine").touch()
    rundir.clear()
    assert [path.name for path in rundir.path.iterdir()] == ["mine"]


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KmeshError, match="cannot make"):
        RunDir(tmp_path / "file" / "run").lock()


def test_a_directory_of_others_things_is_left_as_it_is(tmp_path: Path) -> None:
    """`--run-dir .` in a checkout, or `--run-dir /tmp`."""
    (tmp_path / "bpf").mkdir()
    (tmp_path / "my-cache.json").touch()
    (tmp_path / "fields-cache.json-0123.btf").touch()
    tmp_path.chmod(0o1777)
    rundir = RunDir(tmp_path)
    rundir.lock()
    rundir.write(State())
    rundir.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bpf", "my-cache.json"]
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize("name", ["kmesh.lock", "state.new"])
def test_no_link_that_somebody_laid_is_followed(rundir: RunDir, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    rundir.make()
    (rundir.path / name).symlink_to(victim)
    with suppress(KmeshError):
        rundir.lock()
        rundir.write(State())
    assert victim.read_text() == "precious"


@pytest.mark.root
def test_another_users_directory_is_refused(rundir: RunDir) -> None:
    rundir.make()
    os.chown(rundir.path, 65534, 65534)
    with pytest.raises(KmeshError, match="belongs to another user"):
        rundir.lock()


def test_the_note_of_a_killed_daemon_outlives_a_start_that_failed(rundir: RunDir) -> None:
    rundir.make()
    rundir.write(State(pid=7, pins="/p"))
    rundir.lock()
    rundir.clear(note=False)
    assert rundir.read() == State(pid=7, pins="/p")


def test_a_garbled_lock_still_refuses_the_second(rundir: RunDir) -> None:
    rundir.lock()
    (rundir.path / "kmesh.lock").write_bytes(b"\xff\xfe")
    with pytest.raises(KmeshError, match="runs already"):
        RunDir(rundir.path).lock()


def test_a_note_that_cannot_be_written_says_so(rundir: RunDir) -> None:
    rundir.make()
    (rundir.path / "state.json").mkdir()
    with pytest.raises(KmeshError, match=r"cannot write .*state.json: Is a directory"):
        rundir.write(State())
