# SPDX-License-Identifier: Apache-2.0
"""A consumer of a source that does with updates what any consumer has to: apply them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy
from runtime.source.istiod.source import IstiodSource
from runtime.source.update import Update


class Follower:
    """Keeps what a source has told; `until` waits for it to be so."""

    def __init__(self, source: IstiodSource) -> None:
        self.source = source
        self.updates: list[Update] = []
        self.services: dict[str, Service] = {}
        self.workloads: dict[str, Workload] = {}
        self.policies: dict[str, Policy] = {}
        self.rejected: dict[str, str] = {}
        self.may_take = asyncio.Event()
        self.may_take.set()
        self._changed = asyncio.Condition()
        self._task = asyncio.ensure_future(self._follow())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on this follower or its source holds."""
        async with asyncio.timeout(60):
            while not condition():
                if self._task.done():
                    self._task.result()
                async with self._changed:
                    try:
                        # Not all conditions are on updates: look again now and then.
                        await asyncio.wait_for(self._changed.wait(), 0.02)
                    except TimeoutError:
                        continue

    async def synced(self) -> None:
        await self.until(lambda: bool(self.updates))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        updates = self.source.updates()
        try:
            async for update in updates:
                self._apply(update)
                async with self._changed:
                    self._changed.notify_all()
                await self.may_take.wait()
        finally:
            await updates.aclose()  # type: ignore[attr-defined] # it is a generator

    def _apply(self, update: Update) -> None:
        self.updates.append(update)
        if update.complete:
            self.services, self.workloads, self.policies = {}, {}, {}
        for name in update.removed_services:
            del self.services[name]
        for name in update.removed_workloads:
            del self.workloads[name]
        for name in update.removed_policies:
            del self.policies[name]
        self.services.update({each.key: each for each in update.services})
        self.workloads.update({each.uid: each for each in update.workloads})
        self.policies.update({each.key: each for each in update.policies})
        for name in update.accepted:
            self.rejected.pop(name, None)
        self.rejected.update({each.resource: each.reason for each in update.rejections})
