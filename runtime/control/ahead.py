# SPDX-License-Identifier: Apache-2.0
"""A source that works ahead: in a thread and event loop of its own, before anybody takes updates.

So the first picture is received and decoded while the kernel is probed and programs are loaded.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar, cast

from runtime.model.mesh import NetworkAddress
from runtime.source.update import Source, Update

_T = TypeVar("_T")
_PATIENCE = 10.0  # seconds, for a source to let go


class Ahead:
    """Stands for a source; for one consumer, in another event loop. `close` it.

    Args:
        open_source: makes the source, within the loop in which it stays.
    """

    def __init__(self, open_source: Callable[[], Source]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="source", daemon=True)
        self._thread.start()
        self._first: tuple[AsyncIterator[Update], asyncio.Task[Update]] | None = None
        self._opened = asyncio.run_coroutine_threadsafe(self._open(open_source), self._loop)

    async def _open(self, open_source: Callable[[], Source]) -> Source:
        source = open_source()
        updates = source.updates()
        self._first = updates, asyncio.ensure_future(_next(updates))
        return source

    @property
    def name(self) -> str:
        """Waits for the source to be opened. Raises: KmeshError: it cannot be."""
        return self._opened.result().name

    def __getattr__(self, name: str) -> Any:
        """What else a source tells about itself."""
        return getattr(self._opened.result(), name)

    def want_http(self) -> None:
        """Have the source follow HTTP too, where it does not do so anyway."""
        want = getattr(self._opened.result(), "want_http", None)
        if want is not None:
            want()

    def work(self, what: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Do something else in the loop of the source, until that is done, cancelled, or the source closed."""
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    def demand(self, address: NetworkAddress) -> None:
        """Have a source that works on demand ask for an address. May be called from any thread."""
        source: Any = self._opened.result()
        asyncio.run_coroutine_threadsafe(source.demand(address), self._loop)

    def release(self, address: NetworkAddress) -> None:
        """Have it follow the address no longer."""
        source: Any = self._opened.result()
        self._loop.call_soon_threadsafe(source.release, address)

    async def _there(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def updates(self) -> AsyncIterator[Update]:
        """As the source's own; what it found ahead comes first."""
        source = self._opened.result()
        first, self._first = self._first, None
        updates = first[0] if first else source.updates()
        try:
            if first:
                yield await self._there(_wait(first[1]))
            while True:
                yield await self._there(_next(updates))
        finally:
            with suppress(RuntimeError):  # it was cancelled, and is ending by itself
                await self._there(cast("AsyncGenerator[Update, None]", updates).aclose())

    def close(self) -> None:
        """End the source and its thread. Idempotent."""
        if self._loop.is_closed():
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_end_all(), self._loop).result(_PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():
            self._loop.close()


async def _next(updates: AsyncIterator[Update]) -> Update:
    return await anext(updates)


async def _wait(task: asyncio.Task[Update]) -> Update:
    return await task


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
