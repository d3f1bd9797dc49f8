# SPDX-License-Identifier: Apache-2.0
"""Control groups of `kmesh exec`: private to one command, and never lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.control.rundir import RunDir, State
from runtime.errors import KmeshError
from runtime.kernel.cgroup import cgroup2_root
from runtime.launch.cleanup import clean
from runtime.launch.scope import Scope, dissolve, is_abandoned, processes, remove

pytestmark = pytest.mark.root

NAME = f"test-{os.getpid()}"


@pytest.fixture
def root() -> Iterator[Path]:
    """A root of our own, so that other scopes on this machine do not matter."""
    made = cgroup2_root() / f"kmesh-test-{os.getpid()}"
    made.mkdir()
    yield made
    for path in sorted(made.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
    made.rmdir()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def move(process: subprocess.Popen[bytes], cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(process.pid))


def test_an_empty_scope_goes_and_takes_its_parent_along(root: Path) -> None:
    scope = Scope(root, name=NAME)
    assert scope.path == root / "kmesh" / f"{NAME}-{os.getpid()}"
    assert scope.remove() == []
    assert not (root / "kmesh").exists()


def test_a_scope_with_processes_stays_and_names_them(
    root: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    scope = Scope(root, name=NAME)
    move(sleeper, scope.path)
    assert scope.remove() == [sleeper.pid]
    assert scope.path.is_dir()
    assert dissolve(scope.path)


def test_cgroups_that_the_command_made_below_go_with_it(
    root: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    scope = Scope(root, name=NAME)
    inner = scope.path / "container" / "inner"
    inner.mkdir(parents=True)
    move(sleeper, inner)
    assert scope.remove() == [sleeper.pid]
    assert not is_abandoned(scope.path, empty=True)
    assert dissolve(scope.path)
    assert not (root / "kmesh").exists()
    with suppress(OSError):
        (cgroup2_root() / "cgroup.procs").write_text(str(sleeper.pid))


def test_two_of_one_name_in_one_process_are_refused(root: Path) -> None:
    scope = Scope(root, name=NAME)
    with pytest.raises(KmeshError, match="File exists"):
        Scope(root, name=NAME)
    scope.remove()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 64])
def test_a_name_is_no_path(root: Path, name: str) -> None:
    with pytest.raises(KmeshError, match="cannot be a workload's name"):
        Scope(root, name=name)


def test_a_scope_is_abandoned_only_when_its_exec_is_gone(
    root: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    scope = Scope(root, name=NAME)
    assert not is_abandoned(scope.path)
    move(sleeper, scope.path)
    scope.remove()  # the exec ends, its process goes on
    assert is_abandoned(scope.path)
    assert not is_abandoned(scope.path, empty=True)
    sleeper.kill()
    sleeper.wait()
    assert is_abandoned(scope.path, empty=True)
    assert remove(scope.path)
    assert not is_abandoned(scope.path)


def test_dissolving_moves_processes_out_and_may_be_repeated(
    root: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    scope = Scope(root, name=NAME)
    move(sleeper, scope.path)
    assert dissolve(scope.path)
    assert processes(root) == [sleeper.pid]
    assert not dissolve(scope.path)
    assert sleeper.poll() is None
    with suppress(OSError):
        (cgroup2_root() / "cgroup.procs").write_text(str(sleeper.pid))


def test_only_our_own_are_dissolved(root: Path) -> None:
    with pytest.raises(KmeshError, match="no control group of kmesh exec"):
        dissolve(root)


def test_a_cgroup_that_is_no_scope_is_never_abandoned(root: Path) -> None:
    """A pod's own cgroup is empty: its processes are in those of its containers."""
    pod = root / "pod"
    pod.mkdir()
    assert not is_abandoned(pod)
    assert not is_abandoned(pod, empty=True)


def test_cleaning_up_leaves_cgroups_of_others(root: Path, tmp_path: Path) -> None:
    pod, scope = root / "pod", root / "kmesh" / "web-1"
    pod.mkdir()
    scope.mkdir(parents=True)
    directory = RunDir(tmp_path / "run")
    directory.make()
    directory.write(State(cgroups=[str(pod), str(scope)]))
    removed = clean(run_dir=directory.path, pins=tmp_path / "pins")
    assert str(scope) in removed
    assert str(pod) not in removed
    assert (pod.is_dir(), scope.exists(), directory.path.exists()) == (True, False, False)
