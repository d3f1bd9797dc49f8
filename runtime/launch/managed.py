# SPDX-License-Identifier: Apache-2.0
"""Who is governed: commands of `kmesh exec` and pods; and the note of it for `kmesh cleanup`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from runtime import log
from runtime.control.rundir import RunDir, State
from runtime.enrol.places import Place, is_pod
from runtime.errors import KmeshError
from runtime.launch.scope import dissolve, is_abandoned, processes

_log = log.get("launch")


class Governor(Protocol):
    """The part of a data path that takes workloads in and lets them go."""

    @property
    def cgroups(self) -> list[Path]: ...
    def enroll_cgroup(self, path: Path) -> object: ...
    def release_cgroup(self, path: Path) -> object: ...
    @property
    def namespaces(self) -> list[int]: ...
    def enroll_netns(self, cookie: int) -> object: ...
    def release_netns(self, cookie: int) -> object: ...


class Managed:
    """Keeps the data path, and the note in the run directory, in step with what is enrolled.

    Args:
        path: the data path; used under `lock` only.
        name: its name.
        pins: where it is pinned.
        directory: whose note it keeps.
    """

    def __init__(
        self, path: Governor, *, name: str, pins: Path, directory: RunDir, lock: threading.Lock
    ) -> None:
        self._path = path
        self._name = name
        self._pins = str(pins)
        self._dir = directory
        self._lock = lock
        self.cgroups = [str(cgroup) for cgroup in path.cgroups]  # of the daemon before this one
        self._pods: dict[int, Place] = {}  # by inode of their network namespace
        self._note()

    def fault(self) -> str | None:
        """Say what is wrong when what is pinned is no longer what was pinned; None when it is.

        Attachments last as long as their pins: who removes those takes the data path away.
        """
        try:
            there = {str(cgroup) for cgroup in self._path.cgroups}
        except OSError:
            there = set()
        if Path(self._pins).is_dir() and there >= set(self.cgroups):
            return None
        return f"what was pinned at {self._pins} is gone: restart the daemon"

    def enroll(self, cgroup: str) -> None:
        """Govern the processes of a cgroup from now on.

        Raises:
            KmeshError: there is no such cgroup, or the kernel refuses.
        """
        if not Path(cgroup).is_dir():
            raise KmeshError(f"there is no control group {cgroup} in the daemon's view of the host")
        with self._lock:
            self._prune()
            self._path.enroll_cgroup(Path(cgroup))
            if cgroup not in self.cgroups:
                self.cgroups.append(cgroup)
            self._note()
        _log.info("enrolled %s", cgroup)

    def release(self, cgroup: str) -> None:
        """Govern a cgroup no longer. One that was not enrolled is no error."""
        with self._lock:
            if cgroup not in self.cgroups:
                return
            self._path.release_cgroup(Path(cgroup))
            self.cgroups.remove(cgroup)
            self._note()
        _log.info("released %s", cgroup)

    # Pods.

    def enroll_pod(self, place: Place) -> None:
        """Govern a pod from now on, by its control group where that is known, else by namespace.

        Raises:
            KmeshError: the kernel refuses, or the pod is gone.
        """
        with self._lock:
            if place.cgroup is not None:
                self._path.enroll_cgroup(place.cgroup)
                if str(place.cgroup) not in self.cgroups:
                    self.cgroups.append(str(place.cgroup))
                    self._note()
            else:
                self._path.enroll_netns(place.cookie)
            self._pods[place.inode] = place

    def release_pod(self, place: Place) -> None:
        """Govern a pod no longer; its open connections stay as they are."""
        with self._lock:
            self._pods.pop(place.inode, None)
            if place.cgroup is None:
                self._path.release_netns(place.cookie)
                return
            self._path.release_cgroup(place.cgroup)
            if str(place.cgroup) in self.cgroups:
                self.cgroups.remove(str(place.cgroup))
                self._note()

    def keep_pods(self, places: Iterable[Place]) -> None:
        """Release what an earlier daemon took in as pods, but these."""
        kept = list(places)
        cookies = {place.cookie for place in kept if place.cgroup is None}
        cgroups = {str(place.cgroup) for place in kept}
        with self._lock:
            for cookie in set(self._path.namespaces) - cookies:
                self._path.release_netns(cookie)
            for name in [one for one in self.cgroups if is_pod(Path(one)) and one not in cgroups]:
                self._path.release_cgroup(Path(name))
                self.cgroups.remove(name)
            self._note()

    @property
    def pod_namespaces(self) -> dict[int, Path]:
        """The network namespaces of governed pods, by inode. May be read from any thread."""
        return {inode: place.netns for inode, place in self._pods.copy().items()}

    def dissolve(self) -> None:
        """Remove cgroups whose `kmesh exec` is gone; one that still runs removes its own."""
        for cgroup in map(Path, self.cgroups):
            try:
                if is_abandoned(cgroup):
                    dissolve(cgroup)
            except KmeshError as error:
                _log.warning("%s", error)

    def _prune(self) -> None:
        """Let go of the empty cgroups of every `kmesh exec` that was killed."""
        for name in list(self.cgroups):
            cgroup = Path(name)
            if is_abandoned(cgroup, empty=True):
                self._path.release_cgroup(cgroup)
                dissolve(cgroup)
            if not cgroup.is_dir():
                self.cgroups.remove(name)

    def _note(self) -> None:
        self._dir.write(
            State(pid=os.getpid(), pins=self._pins, mode=self._name, cgroups=self.cgroups)
        )


def namespaces_of(
    cgroups: Iterable[str], pods: Mapping[int, Path] = MappingProxyType({})
) -> list[Path]:
    """The network namespaces of some cgroups' processes, of pods, and this process's own, each once."""
    found = dict(pods)
    own = Path("/proc/self/ns/net")
    members = (Path(f"/proc/{pid}/ns/net") for name in cgroups for pid in processes(Path(name)))
    for path in (own, *members):
        with suppress(OSError):  # the process has just ended
            found.setdefault(path.stat().st_ino, path)
    return list(found.values())
