# SPDX-License-Identifier: Apache-2.0
"""Pods in the daemon's hands: by namespace or control group, and forgotten after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.bpf.lib import BpfError
from runtime.control.rundir import RunDir
from runtime.enrol.places import Place
from runtime.launch.managed import Managed
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


class Stage:
    """Managed pods, whose network namespaces are files named after their cookies."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.run = RunDir(directory / "run")
        self.run.lock()
        self.path = MemoryPath()
        self.managed = self.start()

    def start(self) -> Managed:
        """A daemon, and its successors."""
        return Managed(
            self.path,
            name="compat",
            pins=self.directory,
            directory=self.run,
            lock=threading.Lock(),
            cookie_of=lambda path: int(path.name),
        )

    def place(self, cookie: int, *, cgroup: str = "") -> Place:
        netns = self.directory / str(cookie)
        netns.touch()
        within = self.directory / cgroup if cgroup else None
        if within:
            within.mkdir(parents=True, exist_ok=True)
        return Place(netns, netns.stat().st_ino, cookie, within)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.run.unlock()


def test_pod_is_told_by_namespace_where_its_cgroup_does_not_count(stage: Stage) -> None:
    pod = stage.place(1001)
    stage.managed.enroll_pod(pod)
    assert (stage.path.namespaces, stage.path.cgroups) == ([1001], [])
    assert stage.managed.pods == {pod.inode: pod.netns}
    assert pod.netns in stage.managed.namespaces()
    stage.managed.release_pod(pod)
    assert (stage.path.namespaces, stage.managed.pods) == ([], {})


def test_pod_is_told_by_cgroup_where_that_counts(stage: Stage) -> None:
    pod = stage.place(1001, cgroup=POD)
    stage.managed.enroll_pod(pod)
    assert (stage.path.namespaces, stage.path.cgroups) == ([], [pod.cgroup])
    stage.managed.release_pod(pod)
    assert stage.path.cgroups == []


def test_pod_is_released_whose_namespace_is_gone(stage: Stage) -> None:
    pod = stage.place(1001)
    stage.managed.enroll_pod(pod)
    pod.netns.unlink()
    stage.managed.release_pod(pod)
    assert stage.path.namespaces == []


def test_refused_pod_is_not_taken_for_governed(stage: Stage) -> None:
    stage.path.full = True
    with pytest.raises(BpfError):
        stage.managed.enroll_pod(stage.place(1001))
    assert stage.managed.pods == {}


def test_what_an_earlier_daemon_took_in_goes_but_what_others_want_stays(stage: Stage) -> None:
    kept, gone = stage.place(1001), stage.place(1002)
    for pod in (kept, gone):
        stage.managed.enroll_pod(pod)
    stage.managed.enroll(netns=str(stage.place(1003).netns))
    by_cgroup = stage.place(1004, cgroup=POD)
    stage.managed.enroll_pod(by_cgroup)
    after = stage.start()
    after.keep_pods([kept])
    assert stage.path.namespaces == [1001, 1003]
    assert stage.path.cgroups == []


def test_connections_of_namespaces_are_followed_while_there_are_any() -> None:
    class Observer:
        def __init__(self) -> None:
            self.told: list[bool] = []

        def follow_namespaces(self, *, follow: bool) -> bool:
            self.told.append(follow)
            return True

    telemetry, observer, path = Telemetry(), Observer(), MemoryPath()
    telemetry._path = path
    telemetry._observer = observer  # type: ignore[assignment]
    for cookie in (1, 2):
        telemetry.enroll_netns(cookie)
    for cookie in (1, 2):
        telemetry.release_netns(cookie)
    assert (observer.told[0], observer.told[-1]) == (True, False)
    assert False not in observer.told[:-1], "let go while one was left"
