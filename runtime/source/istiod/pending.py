# SPDX-License-Identifier: Apache-2.0
"""What has changed and was not taken yet.

The stream never waits for the consumer. A resource that changes ten times while the consumer is
busy is here once, so what is kept is bounded by the size of the mesh. One response is merged in
one step: the consumer never sees half of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, Self, TypeVar

from runtime.source.update import Update


class Mergeable(Protocol):
    """Changes by resource; see `runtime.source.istiod.changes.Changes`."""

    def __bool__(self) -> bool: ...
    def merge(self, later: Self) -> None: ...
    def forget_unknown(self, known: Any) -> None: ...
    def to_update(self, *, complete: bool) -> Update: ...


_C = TypeVar("_C", bound=Mergeable)


class Pending(Generic[_C]):
    """Changes between the stream and one consumer; the first that it takes is the whole picture.

    Args:
        empty: makes changes that are none.
        known: holds names of what the consumer has.
    """

    def __init__(self, empty: Callable[[], _C], *, known: object) -> None:
        self._empty = empty
        self._changes = empty()
        self._known = known
        self._whole = asyncio.Event()
        self._ready = asyncio.Event()
        self._first = True

    def merge(self, changes: _C) -> None:
        """Add changes; never waits."""
        self._changes.merge(changes)
        if self._changes:
            self._ready.set()

    def set_whole(self) -> None:
        """From now on the picture is whole, and may be taken; it is, even when the mesh is empty."""
        self._whole.set()
        self._ready.set()

    async def wait_whole(self) -> None:
        """Wait for the first whole picture."""
        await self._whole.wait()

    async def take(self) -> Update:
        """Wait for changes and take all there are; the first time it is the whole picture."""
        await self._whole.wait()
        while True:
            await self._ready.wait()
            changes, self._changes = self._changes, self._empty()
            self._ready.clear()
            changes.forget_unknown(self._known)
            if changes or self._first:
                break
        complete, self._first = self._first, False
        return changes.to_update(complete=complete)
