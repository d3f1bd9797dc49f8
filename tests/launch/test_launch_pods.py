# SPDX-License-Identifier: Apache-2.0
"""Pods in the daemon's hands: by namespace or control group, guarded while they are in, and forgotten after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.bpf.lib import BpfError
from runtime.control.rundir import RunDir
from runtime.enrol.places import Place
from runtime.launch.managed import Managed, namespaces_of
from runtime.launch.telemetry import Telemetry

POD = "kubepods/burstable/pod0f5c1c4e-7e0b-4d51-9a3b-2f6d5a7f9c11"


class MemoryPath:
    """A data path in memory."""

    def __init__(self) -> None:
        self.cgroups: list[Path] = []
        self.namespaces: list[int] = []
        self.full = False

    def enroll_cgroup(self, path: Path) -> None:
        self.cgroups.append(path)

    def release_cgroup(self, path: Path) -> None:
        self.cgroups.remove(path)

    def enroll_netns(self, cookie: int) -> None:
        if self.full:
            raise BpfError("no room", 7)
        self.namespaces.append(cookie)

    def release_netns(self, cookie: int) -> None:
        self.namespaces.remove(cookie)


@pytest.fixture
def path() -> MemoryPath:
    return MemoryPath()


def managed(path: MemoryPath, directory: RunDir) -> Managed:
    return Managed(
        path, name="compat", pins=directory.path, directory=directory, lock=threading.Lock()
    )


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDir]:
    made = RunDir(tmp_path / "run")
    made.lock()
    yield made
    made.unlock()


def place(number: int, cgroup: Path | None = None) -> Place:
    return Place(Path(f"/run/netns/{number}"), number, 1000 + number, cgroup)


def test_pod_is_told_by_namespace_where_its_cgroup_does_not_count(
    path: MemoryPath, directory: RunDir
) -> None:
    made = managed(path, directory)
    made.enroll_pod(place(1))
    assert (path.namespaces, path.cgroups) == ([1001], [])
    assert made.pod_namespaces == {1: Path("/run/netns/1")}
    made.release_pod(place(1))
    assert (path.namespaces, made.pod_namespaces) == ([], {})


def test_pod_is_told_by_cgroup_where_that_counts(
    path: MemoryPath, directory: RunDir, tmp_path: Path
) -> None:
    made = managed(path, directory)
    made.enroll_pod(place(1, tmp_path / POD))
    assert (path.namespaces, path.cgroups) == ([], [tmp_path / POD])
    note = directory.read()
    assert note is not None
    assert note.cgroups == [str(tmp_path / POD)]
    made.release_pod(place(1, tmp_path / POD))
    assert path.cgroups == []


def test_refused_pod_is_not_taken_for_governed(path: MemoryPath, directory: RunDir) -> None:
    path.full = True
    made = managed(path, directory)
    with pytest.raises(BpfError):
        made.enroll_pod(place(1))
    assert made.pod_namespaces == {}


def test_what_an_earlier_daemon_took_in_goes_but_commands_stay(
    path: MemoryPath, directory: RunDir, tmp_path: Path
) -> None:
    path.namespaces = [1001, 1002]
    other = tmp_path / POD.replace("0f5c1c4e", "1f5c1c4e")
    path.cgroups = [tmp_path / POD, other, tmp_path / "kmesh" / "exec-1"]
    made = managed(path, directory)
    made.keep_pods([place(2), place(3, other)])
    assert path.namespaces == [1002]
    assert path.cgroups == [other, tmp_path / "kmesh" / "exec-1"]


def test_policies_guard_pods_namespaces_and_each_once() -> None:
    own = Path("/proc/self/ns/net")
    found = namespaces_of((), {own.stat().st_ino: own, 7: Path("/run/netns/7")})
    assert found == [own, Path("/run/netns/7")]


def test_connections_of_namespaces_are_followed_while_there_are_any(path: MemoryPath) -> None:
    class Observer:
        def __init__(self) -> None:
            self.told: list[bool] = []

        def follow_namespaces(self, *, follow: bool) -> bool:
            self.told.append(follow)
            return True

    telemetry, observer = Telemetry(), Observer()
    telemetry._path = path
    telemetry._observer = observer  # type: ignore[assignment]
    for cookie in (1, 2):
        telemetry.enroll_netns(cookie)
    for cookie in (1, 2):
        telemetry.release_netns(cookie)
    assert observer.told == [True, False]
