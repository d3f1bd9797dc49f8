# SPDX-License-Identifier: Apache-2.0
"""A source that works ahead: nothing is lost, errors arrive, and it ends when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from runtime.control.ahead import Ahead
from runtime.errors import KmeshError
from runtime.source.update import Update


class _Source:
    name = "made up"

    def __init__(self) -> None:
        self.ended = 0
        self.fails = False

    async def updates(self) -> AsyncIterator[Update]:
        try:
            yield Update(removed_services=("one",))
            if self.fails:
                raise KmeshError("gone")
            yield Update(removed_services=("two",))
            await asyncio.Event().wait()
        finally:
            self.ended += 1


async def _take(ahead: Ahead, size: int) -> list[str]:
    found: list[str] = []
    async for update in ahead.updates():
        found += update.removed_services
        if len(found) == size:
            break
    return found


def test_updates_come_in_order_and_the_source_ends() -> None:
    source = _Source()
    ahead = Ahead(lambda: source)
    assert ahead.name == "made up"
    assert asyncio.run(_take(ahead, 2)) == ["one", "two"]
    ahead.close()
    ahead.close()
    assert source.ended == 1


def test_an_error_arrives_and_the_source_can_be_asked_again() -> None:
    source = _Source()
    source.fails = True
    ahead = Ahead(lambda: source)
    with pytest.raises(KmeshError, match="gone"):
        asyncio.run(_take(ahead, 2))
    source.fails = False
    assert asyncio.run(_take(ahead, 2)) == ["one", "two"]
    ahead.close()


def test_closing_ends_a_source_that_nobody_asked() -> None:
    source = _Source()
    ahead = Ahead(lambda: source)
    assert ahead.name == "made up"
    ahead.close()
    assert not ahead._thread.is_alive()
