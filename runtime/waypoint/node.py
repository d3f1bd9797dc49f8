# SPDX-License-Identifier: Apache-2.0
"""The node's waypoint as a whole: fed, started, watched, started again, ended.

A process that ends is started again, at once the first time and after ever longer waits when it keeps ending.
What was accepted and refused is remembered, so that the next one is not given what ended in a refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime import log
from runtime.errors import KmeshError
from runtime.waypoint import admin
from runtime.waypoint.ads import AdsServer
from runtime.waypoint.bootstrap import bootstrap
from runtime.waypoint.ledger import Resources
from runtime.waypoint.place import Place
from runtime.waypoint.process import EnvoyProcess, write_bootstrap

HEAP = 512 << 20
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between starts
_SOUND = 60.0  # seconds after which an end is the first of its kind again
_SOON, _LATER = 0.2, 2.0  # seconds between looks, before and after it is ready

_log = log.get("waypoint")


class NodeWaypoint:
    """One Envoy, and the server that feeds it.

    Args:
        place: where it lives.
        node: this node's name.
        external: somebody else starts and ends it.
        announce: told where it serves, again and again while it does.
        heap: bytes that its heap may take.
        workers: its threads.
    """

    def __init__(
        self,
        place: Place,
        *,
        node: str,
        external: bool = False,
        announce: Callable[[Path], object] = lambda _path: None,
        heap: int = HEAP,
        workers: int = 2,
    ) -> None:
        self._place = place
        self._announce = announce
        self._external = external
        self._bootstrap = bootstrap(node=node, heap=heap)
        self._process = EnvoyProcess(place, bootstrap=self._bootstrap, heap=heap, workers=workers)
        self._ads: AdsServer | None = None
        self._latest: Resources | None = None
        self.ready = False
        self.version = ""
        self.starts = 0
        self.crashes = 0
        self.adopted = False
        self.trouble = ""

    def put(self, resources: Resources) -> None:
        """Take over what Istiod says now: all of it. In the loop that `run` runs in."""
        self._latest = resources
        if self._ads is not None:
            self._ads.put(resources)

    async def run(self) -> None:
        """Work until cancelled, in whose course the process goes on; `stop` ends it.

        A fault of the waypoint's is told and tried again: it must not end anything else.
        """
        while True:
            ads = AdsServer(self._place.ads)
            try:
                await asyncio.to_thread(self._place.make)
                await ads.start()
                self._place.give(self._place.ads)
                self._ads = ads
                if self._latest is not None:
                    ads.put(self._latest)
                await self._keep()
            except (KmeshError, OSError) as error:
                self.trouble = str(error)
                _log.error("the node's waypoint: %s", error)
            finally:
                self.ready = False
                await ads.stop()
            await asyncio.sleep(_LONGEST_WAIT)

    async def _keep(self) -> None:
        if self._external:
            await asyncio.to_thread(write_bootstrap, self._place, self._bootstrap)
            _log.info(
                "the node's waypoint is started by another; %s tells how", self._place.bootstrap
            )
            await self._watch(lambda: True)
        loop, wait = asyncio.get_running_loop(), _FIRST_WAIT
        self.adopted = await asyncio.to_thread(self._process.adopt)
        while True:
            if not self._process.alive:
                await asyncio.to_thread(self._process.start)
                self.starts, self.adopted = self.starts + 1, False
            elif self.adopted:
                _log.info("the node's waypoint (process %d) is taken over", self._process.pid)
            began = loop.time()
            await self._watch(lambda: self._process.alive)
            self.crashes += 1
            if loop.time() - began > _SOUND:
                wait = _FIRST_WAIT
            self.trouble = f"Envoy {self._process.how_it_ended()}"
            _log.error("the node's waypoint: %s; started again in %.1f s", self.trouble, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _watch(self, alive: Callable[[], bool]) -> None:
        """Look after it until it ends."""
        self.ready = False
        while alive():
            ready = await asyncio.to_thread(admin.is_ready, self._place.admin)
            if ready and not self.ready:
                self.version = await asyncio.to_thread(admin.version, self._place.admin)
                _log.info(
                    "the node's waypoint serves: Envoy %s at %s", self.version, self._place.listen
                )
                self.trouble = ""
            self.ready = ready
            if ready:
                await asyncio.to_thread(self._announce, self._place.listen)
            self._process.trim_log()
            await asyncio.sleep(_LATER if ready else _SOON)
        self.ready = False

    def stop(self, *, keep: bool) -> None:
        """After `run`: end the process and remove everything, unless another daemon is to adopt it. Idempotent."""
        if self._external:
            self._place.leave()
        if keep or self._external:
            return
        with suppress(OSError):
            self._process.stop()
        self._place.clear()

    def status(self) -> dict[str, Any]:
        """How it fares. May be called from any thread."""
        ads = self._ads
        refused = ads.ledger.refusals() if ads else {}
        return {
            "ready": self.ready,
            "version": self.version,
            "pid": self._process.pid,
            "socket": str(self._place.listen),
            "starts": self.starts,
            "crashes": self.crashes,
            "adopted": self.adopted,
            "trouble": self.trouble,
            "connected": bool(ads and ads.connected),
            "accepted": bool(ads and ads.settled and not refused),
            "versions": ads.versions() if ads else {},
            "nacks": {s.label: s.nacks for s in ads.ledger.sheets.values()} if ads else {},
            "refused": refused,
        }
