# SPDX-License-Identifier: Apache-2.0
"""Telemetry beside a data path: whether it runs, and everything that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from runtime import log
from runtime.errors import KmeshError
from runtime.kernel.telemetry import GROUP, Observer, remove
from runtime.launch.http_seen import HttpSeen
from runtime.launch.managed import Governor
from runtime.probe.mode import lacking
from runtime.probe.verdict import Finding
from runtime.telemetry.accesslog import AccessLog
from runtime.telemetry.counters import Counters
from runtime.telemetry.directory import Change, Directory
from runtime.telemetry.event import Fields
from runtime.telemetry.reader import Reader

_log = log.get("telemetry")


def telemetry_decision(findings: Iterable[Finding], *, wanted: bool) -> tuple[bool, str]:
    """Decide whether telemetry is to run: a pure function.

    Returns:
        whether it is to run, and why not ("" when it is).
    """
    if not wanted:
        return False, "turned off (--no-telemetry)"
    reason = lacking(findings, GROUP)
    return not reason, reason


class Telemetry:
    """Counters and access log from the start of the daemon; events once a data path is there.

    It takes the place of what enrolls cgroups, and follows what that manages.
    """

    def __init__(self) -> None:
        self._directory = Directory()
        self.counters = Counters(self._directory)
        self.access_log = AccessLog(self._directory)
        self.http = HttpSeen(self._directory, self.access_log)
        self._path: Governor | None = None
        self._pins = Path()
        self._observer: Observer | None = None
        self._reader: Reader | None = None
        self._reason = "the data path does not serve yet"
        self._blind = ""  # to network namespaces, and why
        self._lost = 0
        self.also: Callable[[Sequence[Fields]], object] = lambda _events: None
        self.counters.lost = self.lost
        self.counters.lines_dropped = lambda: self.access_log.dropped

    def start(
        self,
        governor: Governor,
        *,
        objects: Path,
        pins: Path,
        path: str,
        findings: Iterable[Finding],
        wanted: bool,
    ) -> None:
        """Follow the connections of what is managed; where that cannot be, remember why.

        Args:
            governor: what manages cgroups.
            objects: the directory of compiled objects.
            pins: where the data path is pinned.
            path: the data path's name.
            findings: the prober's.
            wanted: whether the user wants it.
        """
        self._path, self._pins = governor, pins
        on, self._reason = telemetry_decision(findings, wanted=wanted)
        if on:
            self._open(objects, path)
        if self._observer is None:
            remove(pins)  # a daemon before this one may have had it
        _log.info("telemetry: %s", f"off ({self._reason})" if self._reason else "on")

    def _open(self, objects: Path, path: str) -> None:
        assert self._path is not None
        try:
            observer = Observer.open(objects, pins=self._pins, path=path)
            try:
                observer.match(self._path.cgroups)
                self._follow_namespaces(observer, follow=bool(self._path.namespaces))
                self._reader = Reader(observer.events, self.take)
            except BaseException:
                observer.close()
                raise
        except KmeshError as error:
            self._reason = str(error)
        else:
            self._observer = observer

    # Events.

    def take(self, events: Sequence[Fields]) -> None:
        """Count events and write them down."""
        self.counters.take(events)
        self.access_log.take(events)
        self.also(events)

    def learn(self, change: Change) -> None:
        """Take over what the source says of workloads and services."""
        if self._observer is not None or self.http.is_attached:
            self._directory.take(change)

    async def run(self) -> None:
        """Read events until cancelled; that they cannot be read ends nothing else."""
        if self._reader is None:
            return
        try:
            await self._reader.run()
        except KmeshError as error:
            self._reason = str(error)
            _log.error("telemetry ends: %s", error)

    def lost(self) -> int:
        """Events that the kernel had no room for; may be asked from any thread."""
        observer = self._observer
        if observer is not None:
            self._lost = observer.lost()
        return self._lost

    # Who is managed.

    @property
    def cgroups(self) -> list[Path]:
        return self._governor.cgroups

    @property
    def _governor(self) -> Governor:
        assert self._path is not None, "telemetry was not started"
        return self._path

    def enroll_cgroup(self, path: Path) -> None:
        """Manage a cgroup; that its connections cannot be followed is no reason not to."""
        self._governor.enroll_cgroup(path)
        if self._observer is not None:
            try:
                self._observer.enroll_cgroup(path)
            except KmeshError as error:
                _log.warning("%s is managed, but its connections are not followed: %s", path, error)

    def release_cgroup(self, path: Path) -> None:
        if self._observer is not None:
            self._observer.release_cgroup(path)
        self._governor.release_cgroup(path)

    @property
    def namespaces(self) -> list[int]:
        return self._governor.namespaces

    def enroll_netns(self, cookie: int) -> None:
        """Manage a network namespace; that its connections cannot be followed is no reason not to."""
        self._governor.enroll_netns(cookie)
        if self._observer is not None:
            self._follow_namespaces(self._observer, follow=True)

    def release_netns(self, cookie: int) -> None:
        self._governor.release_netns(cookie)
        if self._observer is not None and not self._governor.namespaces:
            self._follow_namespaces(self._observer, follow=False)

    def _follow_namespaces(self, observer: Observer, *, follow: bool) -> None:
        before, self._blind = self._blind, ""
        try:
            if follow and not observer.follow_namespaces(follow=True):
                self._blind = "this kernel does not tell such programs the namespace (before 5.15)"
            elif not follow:
                observer.follow_namespaces(follow=False)
        except KmeshError as error:
            self._blind = str(error)
        if self._blind != before and self._blind:
            _log.warning("connections of network namespaces are not followed: %s", self._blind)

    def switch_access_log(self, *, on: bool) -> None:
        """Write connections down from now on, or no longer.

        Raises:
            KmeshError: there is nothing to write down.
        """
        if on and self._observer is None and self.http.status() is None:
            raise KmeshError(f"there is no access log: telemetry is off ({self._reason})")
        self.http.switch_access_log(one_in=int(on))
        if on != self.access_log.on:
            _log.info("access log: %s", "on" if on else "off")
        self.access_log.on = on

    def status(self) -> dict[str, Any]:
        """Whether it runs, or why not, and what came of it."""
        return {
            "on": self._observer is not None,
            "reason": self._reason,
            "namespaces": self._blind,
            "access_log": self.access_log.on,
            "events": self.counters.events,
            "lost": self.lost(),
            "http": self.http.status(),
        }

    # The end.

    def close(self) -> None:
        """Read what is there, and let go; what is pinned works on. Idempotent."""
        if self._reader is not None:
            self._reader.drain()
            self._reader.close()
            self._reader = None
        if self._observer is not None:
            self.lost()
            self._observer.close()
            self._observer = None
        self.http.close()
        self.access_log.close()

    def destroy(self) -> None:
        """Take it away. Idempotent."""
        self.close()
        remove(self._pins)
