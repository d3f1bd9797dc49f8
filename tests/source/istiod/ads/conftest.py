# SPDX-License-Identifier: Apache-2.0
"""A server that sends what was recorded, and followers that end with their test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from runtime.model.http_picture import HttpPicture
from runtime.source.envoy.decode import decode
from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from runtime.source.istiod.ads.source import AdsSource
from runtime.source.istiod.config import IstiodConfig
from runtime.source.update import Source, Update
from tests.source.envoy.wire import payloads
from tests.source.istiod.ads_server import CDS, EDS, LDS, RDS, AdsServer
from tests.source.istiod.conftest import Waits

KINDS = {CDS: CLUSTER, EDS: ENDPOINTS, LDS: LISTENER, RDS: ROUTES}


class Follower:
    """Does with updates what any consumer has to; `until` waits for something to be so."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.updates: list[Update] = []
        self.picture = HttpPicture()
        self.rejected: dict[str, str] = {}
        self._task = asyncio.ensure_future(self._follow())

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.005)

    async def synced(self) -> None:
        await self.until(lambda: self.picture.known)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        updates: Any = self.source.updates()
        try:
            async for update in updates:
                self.updates.append(update)
                if update.http is not None:
                    self.picture.take(update.http)
                for name in update.accepted:
                    self.rejected.pop(name, None)
                self.rejected.update({each.resource: each.reason for each in update.rejections})
        finally:
            await updates.aclose()


@pytest.fixture
async def server() -> AsyncIterator[AdsServer]:
    """A running server that has the recorded resources."""
    made = AdsServer()
    for kind, name in KINDS.items():
        for payload in payloads(name):
            made.put_ads(kind, decode(name, payload)[0], payload)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def follow(config: IstiodConfig, waits: Waits) -> AsyncIterator[Callable[..., Follower]]:
    """Make a follower of a new source; keyword arguments change its configuration."""
    made: list[Follower] = []

    def start(**changes: Any) -> Follower:
        made.append(Follower(AdsSource(replace(config, **changes), sleep=waits)))
        return made[-1]

    yield start
    for follower in made:
        await follower.close()
