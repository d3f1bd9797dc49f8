# SPDX-License-Identifier: Apache-2.0
"""What was made and may be wanted again, by what it was made of: as much as there is room for, the last used."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """Any thread may ask.

    Args:
        room: how much all of it may weigh together.
    """

    def __init__(self, room: int) -> None:
        self._room = self._left = room
        self._lock = threading.Lock()
        self._there: OrderedDict[Hashable, tuple[_T, int]] = OrderedDict()

    def get(self, key: Hashable) -> _T | None:
        """What was made of that, if it is still there."""
        with self._lock:
            found = self._there.get(key)
            if found is None:
                return None
            self._there.move_to_end(key)
            return found[0]

    def keep(self, key: Hashable, made: _T, *, weight: int) -> None:
        """Keep it until there is no room; what alone is too heavy is not kept."""
        with self._lock:
            if weight > self._room or key in self._there:
                return
            self._there[key] = made, weight
            self._left -= weight
            while self._left < 0:
                _, (_, gone) = self._there.popitem(last=False)
                self._left += gone

    @property
    def weight(self) -> int:
        """Of all that is there."""
        return self._room - self._left
