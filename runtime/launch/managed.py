# SPDX-License-Identifier: Apache-2.0
"""Who is managed, by control group or by network namespace, and the note of it for the next daemon."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from runtime import log
from runtime.control.rundir import Namespace, RunDir, State, boot_id
from runtime.enrol.places import Place, is_pod
from runtime.errors import KmeshError
from runtime.launch import namespaces
from runtime.launch.scope import dissolve, is_abandoned

# Who wants a pod's namespace managed, among `holders`: no process, and not for good.
_PODS = -1

_log = log.get("launch")


class Governor(Protocol):
    """The part of a data path that takes workloads in and lets them go."""

    @property
    def cgroups(self) -> list[Path]: ...
    def enroll_cgroup(self, path: Path) -> object: ...
    def release_cgroup(self, path: Path) -> object: ...

    @property
    def namespaces(self) -> list[int]:
        """The cookies of the network namespaces that are managed."""

    def enroll_netns(self, cookie: int) -> object: ...
    def release_netns(self, cookie: int) -> object: ...


class Managed:
    """Keeps the data path, and the note in the run directory, in step with what is enrolled.

    Args:
        path: the data path; used under `lock` only.
        name: its name.
        pins: where it is pinned.
        directory: whose note it keeps.
        cookie_of: asks the kernel for a network namespace's cookie.
    """

    def __init__(
        self,
        path: Governor,
        *,
        name: str,
        pins: Path,
        directory: RunDir,
        lock: threading.Lock,
        cookie_of: namespaces.CookieOf,
    ) -> None:
        self._path = path
        self._name = name
        self._pins = str(pins)
        self._dir = directory
        self._lock = lock
        self._cookie_of = cookie_of
        self.cgroups = [str(cgroup) for cgroup in path.cgroups]  # of the daemon before this one
        self.pods: dict[int, Path] = {}  # their network namespaces by inode; any thread may look
        self._netns = {cookie: Namespace(cookie) for cookie in path.namespaces}
        self._remember()
        self._note()

    def _remember(self) -> None:
        """The kernel keeps who is managed; where that is, and for whom, the note does."""
        noted = self._dir.read()
        for one in noted.namespaces if noted else ():
            if one.cookie in self._netns:
                self._netns[one.cookie] = one
        self._netns = {cookie: self._located(one) for cookie, one in self._netns.items()}

    def fault(self) -> str | None:
        """Say what is wrong when what is pinned is no longer what was pinned; None when it is.

        Attachments last as long as their pins: who removes those takes the data path away.
        """
        try:
            cgroups = {str(cgroup) for cgroup in self._path.cgroups}
            netns = set(self._path.namespaces)
        except OSError:
            cgroups, netns = set(), set()
        whole = cgroups >= set(self.cgroups) and netns >= self._netns.keys()
        if Path(self._pins).is_dir() and whole:
            return None
        return f"what was pinned at {self._pins} is gone: restart the daemon"

    def namespaces(self) -> list[Path]:
        """The network namespaces of what is managed, and this process's own, each once."""
        found = namespaces.of_cgroups(list(self.cgroups))
        pods = self.pods.copy().values()
        return list(namespaces.by_inode((*found, *self._places(), *pods)).values())

    def _places(self) -> Iterator[Path]:
        for known in list(self._netns.values()):
            now = self._located(known) if known.path else known
            self._netns[now.cookie] = now
            if now.path:
                yield Path(now.path)

    def _located(self, known: Namespace) -> Namespace:
        """With a path that leads there, as long as there is any."""
        if namespaces.leads_there(known):
            return known
        return namespaces.locate(known, cookie_of=self._cookie_of)

    def enroll(self, cgroup: str = "", *, netns: str = "", holder: int = 0) -> None:
        """Govern the processes of a cgroup, or of a network namespace, from now on. Idempotent.

        Args:
            cgroup: the cgroup's directory.
            netns: a path that leads to the namespace, or its cookie.
            holder: who wants the namespace managed: 0 for good, or a process until it releases it.

        Raises:
            KmeshError: there is no such thing, or the kernel refuses.
        """
        if netns:
            self._enroll_netns(netns, holder)
            return
        if not Path(cgroup).is_dir():
            raise KmeshError(f"there is no control group {cgroup} in the daemon's view of the host")
        with self._lock:
            self._prune()
            self._path.enroll_cgroup(Path(cgroup))
            if cgroup not in self.cgroups:
                self.cgroups.append(cgroup)
            self._note()
        _log.info("enrolled %s", cgroup)

    def _enroll_netns(self, told: str, holder: int) -> None:
        found = namespaces.find(told, cookie_of=self._cookie_of)
        with self._lock:
            self._prune()
            self._path.enroll_netns(found.cookie)
            before = self._netns.get(found.cookie)
            found.holders = sorted({*(before.holders if before else ()), holder})
            self._netns[found.cookie] = found
            self._note()
        where = found.path or "no path to it is known"
        _log.info("enrolled network namespace %d (%s)", found.cookie, where)

    def release(self, cgroup: str = "", *, netns: str = "", holder: int = 0) -> None:
        """Govern it no longer. What was not enrolled is no error.

        A namespace that others hold stays managed; released for good (holder 0) it goes at once.
        """
        if netns:
            self._release_netns(netns, holder)
            return
        with self._lock:
            if cgroup not in self.cgroups:
                return
            self._path.release_cgroup(Path(cgroup))
            self.cgroups.remove(cgroup)
            self._note()
        _log.info("released %s", cgroup)

    def _release_netns(self, told: str, holder: int) -> None:
        with self._lock:
            known = self._known(told)
            if known is None:
                return
            known.holders = [each for each in known.holders if holder and each != holder]
            if not known.holders:
                self._path.release_netns(known.cookie)
                del self._netns[known.cookie]
                _log.info("released network namespace %d (%s)", known.cookie, known.path)
            self._note()

    def _known(self, told: str) -> Namespace | None:
        """What is managed under a name that may lead nowhere any more."""
        if told.isdecimal():
            return self._netns.get(int(told))
        for one in self._netns.values():
            if one.path == told:
                return one
        try:
            return self._netns.get(self._cookie_of(Path(told)))
        except (KmeshError, OSError):
            return None

    def enroll_pod(self, place: Place) -> None:
        """Govern a pod from now on, by its control group where that is known, else by namespace.

        Raises:
            KmeshError: the kernel refuses, or the pod is gone.
        """
        if place.cgroup is not None:
            self.enroll(str(place.cgroup))
        else:
            self.enroll(netns=str(place.netns), holder=_PODS)
        self.pods[place.inode] = place.netns

    def release_pod(self, place: Place) -> None:
        """Govern a pod no longer; its open connections stay as they are."""
        self.pods.pop(place.inode, None)
        if place.cgroup is not None:
            self.release(str(place.cgroup))
        else:
            self.release(netns=str(place.cookie), holder=_PODS)

    def keep_pods(self, places: Iterable[Place]) -> None:
        """Release what an earlier daemon took in as pods, but these."""
        kept = list(places)
        cookies = {place.cookie for place in kept if place.cgroup is None}
        cgroups = {str(place.cgroup) for place in kept}
        for one in [each for each in self._netns.values() if _PODS in each.holders]:
            if one.cookie not in cookies:
                self.release(netns=str(one.cookie), holder=_PODS)
        for name in [each for each in self.cgroups if is_pod(Path(each)) and each not in cgroups]:
            self.release(name)

    def describe(self) -> list[str]:
        """Everything that is managed, in words."""
        netns = (f"netns {one.cookie} {one.path}".rstrip() for one in self._netns.values())
        return [*self.cgroups, *netns]

    @property
    def netns(self) -> int:
        """How many network namespaces are managed."""
        return len(self._netns)

    def dissolve(self) -> None:
        """Remove cgroups whose `kmesh exec` is gone; one that still runs removes its own."""
        for cgroup in map(Path, self.cgroups):
            try:
                if is_abandoned(cgroup):
                    dissolve(cgroup)
            except KmeshError as error:
                _log.warning("%s", error)

    def _prune(self) -> None:
        """Let go of the empty cgroups of every `kmesh exec` that was killed, and of what is gone."""
        for name in list(self.cgroups):
            cgroup = Path(name)
            if is_abandoned(cgroup, empty=True):
                self._path.release_cgroup(cgroup)
                dissolve(cgroup)
            if not cgroup.is_dir():
                self.cgroups.remove(name)
        for known in [one for one in self._netns.values() if one.path]:
            if not self._located(known).path:
                self._path.release_netns(known.cookie)
                del self._netns[known.cookie]

    def _note(self) -> None:
        self._dir.write(
            State(
                pid=os.getpid(),
                pins=self._pins,
                mode=self._name,
                cgroups=self.cgroups,
                namespaces=list(self._netns.values()),
                boot=boot_id(),
                release=os.uname().release,
            )
        )
