# SPDX-License-Identifier: Apache-2.0
"""HTTP in the kernel, as far as it takes a process: the gate is kept running, wherever workloads are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from runtime import log
from runtime.errors import KmeshError
from runtime.kernel.datapath import DataPath
from runtime.kernel.gate import Gate
from runtime.launch.gate import (
    GatePlace,
    end_gate,
    ensure_gate,
    other_maps_run,
    running,
    start_beside,
    stop_gate,
    succeed,
)
from runtime.launch.namespaces import OWN, CookieOf, by_inode

_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # before a gate that died is started again
_STEADY_SECONDS = 60.0  # that it must live for the count to begin anew

_log = log.get("launch")


class Http:
    """The gate of the enhanced path.

    Args:
        path: the data path, open.
        place: where the gate lives.
        cookie_of: asks the kernel for a network namespace's cookie.
        namespaces: tells where managed processes are now.
    """

    def __init__(
        self,
        path: DataPath,
        *,
        place: GatePlace,
        cookie_of: CookieOf,
        namespaces: Callable[[], Iterable[Path]],
    ) -> None:
        self._path = path
        self._place = place
        self._cookie_of = cookie_of
        self._namespaces = namespaces
        self._lock = threading.Lock()
        self._spaces: dict[int, int] = {}  # cookies by inode
        self._beside: dict[int, int] = {}  # those of a gate that is to be ours
        self._pid = 0
        self.waypoint: Callable[[], Path | None] = lambda: None  # of the node
        self.restarts = 0
        self._trouble = ""
        self._is_astray = False  # people are sent to a gate that does not run

    @property
    def socket(self) -> Path:
        """The gate's control socket."""
        return self._place.socket

    def start(self) -> None:
        """Have the gate run, and listen in this process's network namespace.

        Raises:
            KmeshError: it does not start.
        """
        with self._lock:
            other = other_maps_run(self._path, self._place)
            self._path.before_turn_over = self._stand_beside if other else _nothing
            self._path.after_turn_over = self._succeed if other else _nothing
            # That one knows who is sent to it, until this version's tables serve.
            self._pid = other or ensure_gate(self._path, self._place)
            self._spaces.clear()
        self.follow([OWN])

    def _stand_beside(self) -> None:
        """Have this version's gate listen wherever the other does, before anybody is sent to it.

        Raises:
            KmeshError: it does not start.
        """
        wanted = by_inode((OWN, *self._namespaces()))
        with self._lock:
            self._pid, self._beside = start_beside(self._path, self._place), {}
            with Gate(self._place.beside) as gate:
                gate.set_waypoint(self.waypoint() or "")
                failed = self._listen(gate, wanted, self._beside)
        for each in failed:  # it is tried again soon
            _log.error("%s", each)

    def _succeed(self) -> None:
        """Nobody is sent to the other gate any more: be there for them, if need be by a third."""
        self._path.before_turn_over = self._path.after_turn_over = _nothing
        try:
            with self._lock:
                succeed(self._place)
                self._spaces = self._beside
        except KmeshError as error:
            _log.error(
                "the gate of before is not succeeded by this version's: %s; starting it anew", error
            )
            self._is_astray = True
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Another gate wherever workloads are; where that fails, `keep` tries again."""
        try:
            self.start()
            self._is_astray = False
            self.follow()
        except (KmeshError, OSError) as error:
            self._say(f"the gate does not start: {error}" if self._is_astray else str(error))

    def follow(self, namespaces: Iterable[Path] | None = None) -> None:
        """Have the gate listen in the network namespaces of managed processes, and in no others.

        Args:
            namespaces: those to add; without, all of them, and the others are dropped.

        Raises:
            KmeshError: the gate does not answer, or cannot listen in one; it listens in the others.
        """
        wanted = by_inode(self._namespaces() if namespaces is None else namespaces)
        with self._lock:
            gone = [] if namespaces is not None else [*(self._spaces.keys() - wanted.keys())]
            new = {inode: path for inode, path in wanted.items() if inode not in self._spaces}
            if not (gone or new):
                return
            with Gate(self._place.socket) as gate:
                for inode in gone:
                    gate.drop_space(self._spaces.pop(inode))
                failed = self._listen(gate, new, self._spaces)
        if failed:
            raise KmeshError("; ".join(failed))

    def _listen(self, gate: Gate, wanted: Mapping[int, Path], spaces: dict[int, int]) -> list[str]:
        """Add namespaces to a gate; where it cannot listen, and why."""
        failed: list[str] = []
        for inode, path in wanted.items():
            self._add(gate, spaces, inode, path, failed)
        return failed

    def _add(
        self, gate: Gate, spaces: dict[int, int], inode: int, path: Path, failed: list[str]
    ) -> None:
        try:
            cookie = self._cookie_of(path)
        except (KmeshError, OSError):
            return  # it has just gone
        try:
            gate.add_space(cookie, path)
            spaces[inode] = cookie
        except KmeshError as error:
            failed.append(f"network namespace {cookie}: {error}")

    async def keep(self) -> None:
        """Start a gate that died again, for ever; follow who is managed."""
        deaths, steady = 0, 0.0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._is_astray and await asyncio.to_thread(running, self._place) is not None:
                steady += _LOOK_SECONDS
                deaths = 0 if steady > _STEADY_SECONDS else deaths
            else:
                steady = 0.0
                await asyncio.sleep(_AGAIN_SECONDS[min(deaths, len(_AGAIN_SECONDS) - 1)])
                deaths += 1
                await asyncio.to_thread(self._begin_anew if self._is_astray else self._restart)
            await asyncio.to_thread(self._follow)

    def _restart(self) -> None:
        self.restarts += 1
        _log.error(
            "THE GATE DIED (process %d): connections to services with HTTP routes were cut; "
            "starting it again, for the %d. time",
            self._pid,
            self.restarts,
        )
        try:
            self.start()
        except (KmeshError, OSError) as error:
            self._say(f"the gate does not start: {error}")

    def _follow(self) -> None:
        if self._is_astray:
            return
        try:
            self.follow()
        except KmeshError as error:
            self._say(str(error))
        else:
            self._say("")

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            _log.error("%s", trouble)
        self._trouble = trouble

    def fault(self) -> str | None:
        """Why connections to services with routes are refused somewhere; None when they are not."""
        return self._trouble or None

    def status(self) -> Mapping[str, Any]:
        """The gate in numbers, and what the kernel made of requests."""
        try:
            with Gate(self._place.socket, seconds=2) as gate:
                told: dict[str, Any] = dict(gate.status())
        except KmeshError as error:
            told = {"error": str(error)}
        return {
            **told,
            "restarts": self.restarts,
            "trouble": self._trouble,
            "requests": self._path.gate_counters(),
        }

    def destroy(self) -> None:
        """End the gate, and what goes by it. Idempotent."""
        stop_gate(self._path, self._place)
        self._place.log.unlink(missing_ok=True)


def _nothing() -> None:
    """Nothing is to be done."""


def clear(run_dir: Path) -> list[str]:
    """End the gate that a daemon left, and remove its files; what was removed, in words. Idempotent."""
    place = GatePlace.at(run_dir, Path())
    there = place.cgroup.is_dir() or place.socket.exists()
    end_gate(place)
    place.log.unlink(missing_ok=True)
    return [f"the gate of {place.cgroup}"] if there else []
