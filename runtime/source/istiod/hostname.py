# SPDX-License-Identifier: Apache-2.0
"""Workloads that have a hostname instead of addresses: resolved, and resolved again.

The system's resolver is used, so that a node's own DNS rules hold. Each answer is refreshed when DNS
says that it expires (time_to_live.py), or after a fixed time where DNS does not say; spread at random
so that a thousand names are not looked up in one moment. An answer that cannot be had leaves the last
one in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from runtime import log
from runtime.model.mesh import IPAddress, Workload

_AT_ONCE = 8
_SPREAD = 0.2
_LEAST, _MOST = 1.0, 3600.0  # seconds: no answer is believed for less, whatever DNS says, or more
_log = log.get("source.istiod")
Lookup = Callable[[str], Awaitable[tuple[IPAddress, ...]]]
Life = Callable[[str], Awaitable[float | None]]


async def system_lookup(hostname: str) -> tuple[IPAddress, ...]:
    """All addresses of a hostname, in a stable order, from the system's resolver.

    Each look-up has a thread that nobody waits for: a resolver that hangs must not keep the
    process from ending, as it would in the pool that asyncio waits for.

    Raises:
        OSError: it cannot be resolved.
        ValueError: it cannot be a hostname.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[set[str]] = loop.create_future()
    thread = threading.Thread(target=_resolve, args=(hostname, loop, answer), daemon=True)
    thread.start()
    addresses = map(ip_address, await answer)
    return tuple(sorted(addresses, key=lambda each: (each.version, int(each))))


def _resolve(
    hostname: str, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[set[str]]
) -> None:
    texts: set[str] = set()
    failure: Exception | None = None
    try:
        found = socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)
        texts = {str(address[0]).partition("%")[0] for *_, address in found}
    except (OSError, ValueError) as error:
        failure = error
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_settle, answer, texts, failure)


def _settle(answer: asyncio.Future[set[str]], texts: set[str], failure: Exception | None) -> None:
    if answer.done():
        return
    if failure is not None:
        answer.set_exception(failure)
    else:
        answer.set_result(texts)


class Hostnames:
    """Knows the addresses of every hostname that some workload has.

    Args:
        changed: called with a workload whose addresses have changed.
        unresolved: kept up to date with the reason for each name that cannot be resolved.
        refresh: seconds for which an answer is believed where nobody says how long.
        lookup: resolves one name, raises OSError or ValueError when it cannot.
        life: says for how many seconds an answer about a name holds, None where it cannot.
    """

    def __init__(
        self,
        *,
        changed: Callable[[Workload], None],
        unresolved: dict[str, str],
        refresh: float,
        lookup: Lookup = system_lookup,
        life: Life | None = None,
    ) -> None:
        self._life = life
        self._changed = changed
        self._unresolved = unresolved
        self._refresh = refresh
        self._lookup = lookup
        self._workloads: dict[str, Workload] = {}
        self._users: dict[str, set[str]] = {}
        self._addresses: dict[str, tuple[IPAddress, ...]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._tried: dict[str, asyncio.Event] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def take(self, workloads: Mapping[str, Workload | None]) -> dict[str, Workload | None]:
        """Follow changes of workloads; returns those to be replaced by their resolved form."""
        resolved: dict[str, Workload | None] = {}
        for uid, workload in workloads.items():
            if workload is not None and workload.hostname and not workload.addresses:
                resolved[uid] = self._follow(workload)
            elif uid in self._workloads:
                self._leave(uid)
        return resolved

    async def settle(self, seconds: float) -> None:
        """Wait until every name was tried once, at most for so many seconds."""
        waits = [asyncio.ensure_future(event.wait()) for event in self._tried.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=seconds)
            for wait in late:
                wait.cancel()

    def resume(self) -> None:
        """Look up again, after `close`, what is still followed."""
        for name in self._users:
            self._look_after(name)

    async def close(self) -> None:
        """Stop looking anything up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def _follow(self, workload: Workload) -> Workload:
        uid, name = workload.uid, workload.hostname
        if uid in self._workloads and self._workloads[uid].hostname != name:
            self._leave(uid)
        self._workloads[uid] = workload
        self._users.setdefault(name, set()).add(uid)
        self._look_after(name)
        return replace(workload, addresses=self._addresses.get(name, ()))

    def _look_after(self, name: str) -> None:
        if name not in self._tasks:
            self._tried[name] = asyncio.Event()
            self._tasks[name] = asyncio.get_running_loop().create_task(self._keep(name))

    def _leave(self, uid: str) -> None:
        name = self._workloads.pop(uid).hostname
        users = self._users[name]
        users.discard(uid)
        if users:
            return
        self._tasks.pop(name).cancel()
        del self._users[name], self._tried[name]
        self._addresses.pop(name, None)
        self._unresolved.pop(name, None)

    async def _keep(self, name: str) -> None:
        while True:
            async with self._slots:
                await self._look_up(name)
            self._tried[name].set()
            await asyncio.sleep(await self._believed_for(name))

    async def _believed_for(self, name: str) -> float:
        """Seconds to the next look-up; never before the answer expires, where that is known."""
        life = await self._life(name) if self._life and name not in self._unresolved else None
        if life is None:
            return self._refresh * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311
        return min(max(life, _LEAST), _MOST) * random.uniform(1, 1 + _SPREAD)  # noqa: S311

    async def _look_up(self, name: str) -> None:
        try:
            addresses = await self._lookup(name)
        except (OSError, ValueError) as error:
            self._failed(name, str(error))
            return
        self._unresolved.pop(name, None)
        if addresses != self._addresses.get(name):
            self._addresses[name] = addresses
            for uid in sorted(self._users[name]):
                self._changed(replace(self._workloads[uid], addresses=addresses))

    def _failed(self, name: str, reason: str) -> None:
        if name not in self._unresolved:
            kept = "its last addresses stay" if name in self._addresses else "it has no address"
            _log.warning("hostname %s cannot be resolved (%s); %s", name, reason, kept)
        self._unresolved[name] = reason
