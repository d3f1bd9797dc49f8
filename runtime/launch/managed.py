# SPDX-License-Identifier: Apache-2.0
"""The control groups that `kmesh exec` has enrolled, and the note of them for `kmesh cleanup`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from runtime import log
from runtime.control.rundir import RunDir, State, boot_id
from runtime.errors import KmeshError
from runtime.launch.scope import dissolve, is_abandoned, processes

_log = log.get("launch")


class Governor(Protocol):
    """The part of a data path that takes workloads in and lets them go."""

    @property
    def cgroups(self) -> list[Path]: ...
    def enroll_cgroup(self, path: Path) -> object: ...
    def release_cgroup(self, path: Path) -> object: ...


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
            State(
                pid=os.getpid(),
                pins=self._pins,
                mode=self._name,
                cgroups=self.cgroups,
                boot=boot_id(),
                release=os.uname().release,
            )
        )


def namespaces_of(cgroups: Iterable[str]) -> list[Path]:
    """The network namespaces of some cgroups' processes, and this process's own, each once."""
    found: dict[int, Path] = {}
    own = Path("/proc/self/ns/net")
    members = (Path(f"/proc/{pid}/ns/net") for name in cgroups for pid in processes(Path(name)))
    for path in (own, *members):
        with suppress(OSError):  # the process has just ended
            found.setdefault(path.stat().st_ino, path)
    return list(found.values())
