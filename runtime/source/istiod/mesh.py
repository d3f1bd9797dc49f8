# SPDX-License-Identifier: Apache-2.0
"""The source `istiod`: the workload API, and ADS beside it once HTTP is wanted.

Two streams, each with its own reconnects, and one sequence of updates. The picture of the workload API
comes first; ADS that fails, or never answers, holds up nothing. ADS is opened only when it is wanted,
so that who serves no HTTP pays nothing for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runtime import log
from runtime.model.mesh import NetworkAddress
from runtime.model.waypoint_policies import AtWaypoints
from runtime.source.istiod.client import Sleep
from runtime.source.istiod.config import IstiodConfig
from runtime.source.istiod.hostname import Lookup, system_lookup
from runtime.source.istiod.source import IstiodSource
from runtime.source.update import Update

if TYPE_CHECKING:
    from runtime.source.istiod.ads.source import AdsSource, Follower

_UNTOLD = AtWaypoints(unknown="Istiod's workload API does not tell of them")
_PAUSE = 5.0  # seconds before ADS is begun anew after a fault of ours
_log = log.get("source.istiod")


class MeshStatus:
    """How both connections fare; that of ADS is None before it is wanted."""

    def __init__(self, source: IstiodMesh) -> None:
        self._source = source

    def to_json(self) -> dict[str, object]:
        """The workload API's fields, and those of ADS below `http`."""
        ads = self._source.ads
        return self._source.workloads.status.to_json() | {
            "http": ads.status.to_json() if ads else None
        }


class IstiodMesh:
    """Services, workloads, policies, and HTTP when it is wanted; make it in a running event loop.

    Args:
        config: where Istiod is and how to talk to it.
        http: want HTTP from the beginning.
        lookup: resolves the hostnames of workloads.
        sleep: waits between attempts to connect.
    """

    name = "istiod"

    def __init__(
        self,
        config: IstiodConfig,
        *,
        http: bool = False,
        lookup: Lookup = system_lookup,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.workloads = IstiodSource(config, lookup=lookup, sleep=sleep)
        self.ads: AdsSource | None = None
        self.status = MeshStatus(self)
        self._config = config
        self._sleep = sleep
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        if http:
            self._wanted.set()
        self._http: Any = None  # the updates of ADS, while somebody takes them
        self._followers: list[Follower] = []
        self._begun = False
        self._left: list[Update] = []  # what had come when nobody took updates any more

    async def demand(self, address: NetworkAddress) -> bool:
        """On demand: ask for what is at an address; see IstiodSource."""
        return await self.workloads.demand(address)

    def release(self, address: NetworkAddress) -> None:
        """On demand: stop following an address."""
        self.workloads.release(address)

    def want_http(self) -> None:
        """Open ADS too. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._wanted.set)

    def follow_resources(self, follower: Follower) -> None:
        """See `AdsSource.follow`; ADS is opened for it. Call it in the loop of the source."""
        self._followers.append(follower)
        if self.ads is not None:
            self.ads.follow(follower)
        self._wanted.set()

    def origins(self) -> dict[str, str]:
        """Who sent each resource. May be called from any thread."""
        ads = self.ads
        return self.workloads.origins() | (ads.origins() if ads else {})

    async def updates(self) -> AsyncIterator[Update]:
        """Changes, the first of them the whole picture of services, workloads and policies.

        The first that says anything of HTTP is the whole picture of that.

        Raises:
            KmeshError: the client of the workload API came to an end by a fault of ours.
        """
        mesh: Any = self.workloads.updates()
        coming = {"mesh": _soon(anext(mesh)), "http": _soon(self._next_of_http())}
        try:
            while self._left:
                yield self._left.pop(0)
            while True:
                waited = coming.values() if self._begun else [coming["mesh"]]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                which = "mesh" if coming["mesh"].done() else "http"
                update = coming[which].result()
                coming[which] = _soon(anext(mesh) if which == "mesh" else self._next_of_http())
                self._begun = True
                yield replace(update, at_waypoints=_UNTOLD) if update.complete else update
        finally:
            await self._let_go(list(coming.values()), mesh)

    async def _let_go(self, coming: list[asyncio.Task[Update]], mesh: Any) -> None:
        for task in coming:
            task.cancel()
        ended = await asyncio.gather(*coming, return_exceptions=True)
        self._left += [update for update in ended if isinstance(update, Update)]
        for updates in (mesh, self._http):
            if updates is not None:
                with suppress(RuntimeError):  # it was cancelled, and is ending by itself
                    await updates.aclose()
        self._http = None

    async def _next_of_http(self) -> Update:
        await self._wanted.wait()
        while True:
            try:
                if self._http is None:
                    self._http = self._open().updates()
                update: Update = await anext(self._http)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with HTTP, the rest must go on
                _log.error("HTTP from Istiod: %s; what it said last keeps serving", error)
                self._http = None
                await self._sleep(_PAUSE)
            else:
                return update

    def _open(self) -> AdsSource:
        if self.ads is None:
            from runtime.source.istiod.ads.source import AdsSource

            self.ads = AdsSource(self._config, sleep=self._sleep)
            for follower in self._followers:
                self.ads.follow(follower)
        return self.ads


def _soon(work: Coroutine[Any, Any, Update]) -> asyncio.Task[Update]:
    return asyncio.ensure_future(work)
