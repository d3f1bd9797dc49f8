# SPDX-License-Identifier: Apache-2.0
"""Asking for a resource by the address that it is reached at, and waiting for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from runtime.model.mesh import NetworkAddress

Ask = Callable[[Sequence[str], Sequence[str]], None]


class Demands:
    """What was asked for and by whom.

    Args:
        ask: called with names to want from now on, and names to want no longer.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[str, bool] = {}
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._aliases: dict[str, tuple[str, ...]] = {}  # of each resource that came

    async def demand(self, address: NetworkAddress) -> bool:
        """Whether there is a service or workload at an address; asks Istiod the first time.

        What is found comes with the source's updates, and is kept up to date until released.
        Waits for as long as Istiod does not answer: bound it with `asyncio.timeout`.
        """
        name = str(address)
        if name in self._known:
            return self._known[name]
        if name not in self._waiting:
            self._waiting[name] = asyncio.get_running_loop().create_future()
            self._ask([name], [])
        # Others may wait for the same answer: one that gives up must not cancel it for them.
        return await asyncio.shield(self._waiting[name])

    def release(self, address: NetworkAddress) -> None:
        """Want this address no longer; who still waits for it learns that nothing is there."""
        name = str(address)
        known = self._known.pop(name, None)
        waiting = self._waiting.pop(name, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(False)
        if known is not None or waiting is not None:
            self._ask([], [name])

    def answered(self, *, found: Mapping[str, Sequence[str]], missing: Iterable[str]) -> None:
        """Tell who waits.

        Args:
            found: aliases of the resources that a response brought, by name.
            missing: names that are not there, or not any more.
        """
        for name in missing:
            for asked in (name, *self._aliases.pop(name, ())):
                self._note(asked, there=False)
        for name, aliases in found.items():
            self._aliases[name] = tuple(aliases)
            for asked in (name, *aliases):
                self._note(asked, there=True)

    def _note(self, name: str, *, there: bool) -> None:
        waiting = self._waiting.pop(name, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(there)
        if waiting is not None or name in self._known:
            self._known[name] = there
