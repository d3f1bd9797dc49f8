# SPDX-License-Identifier: Apache-2.0
"""How much of the tables routes may take to be told apart by more than their paths.

Conditions multiply: 150 routes that each ask for three of eight headers come to millions of
combinations. Such growth is out of all proportion to the routes, so room is given in proportion to
them: to the routes that one path may take, and to all routes of a virtual host together. What is over
comes out of a part that the virtual host has once. So routes that explode take nothing away from
others, and any number of routes that ask for a little each has room.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime.tables.http_conditions import Condition
from runtime.tables.http_numbers import Place

# In states, and as many for each look at a route. Methods, headers and parameters beside ten thousand
# paths take about ten for each route.
OF_A_ROUTE = 48
OF_A_LETTER = 2  # of what it asks for beside the path
SHARED = 100_000  # of a virtual host


def entitled(conditions: Iterable[Condition]) -> int:
    """How much a route is entitled to, by what it asks for."""
    beside = (one for one in conditions if one.place != Place.PATH)
    return OF_A_ROUTE + OF_A_LETTER * sum(len(one.text.value) for one in beside)


class HostRoom:
    """What a virtual host has left.

    Args:
        entitled: to so much its routes are entitled all together.
    """

    def __init__(self, entitled: int) -> None:
        self.shared = SHARED
        self.left = entitled + SHARED


class Room:
    """What the routes that one path may take have left, or all of a host that no path is known of yet."""

    def __init__(self, host: HostRoom, entitled: int, *, is_behind_path: bool) -> None:
        self.is_behind_path = is_behind_path
        self._host = host
        self._left = entitled

    def behind_path(self, entitled: int) -> Room:
        """That of routes that one path may take."""
        return Room(self._host, entitled, is_behind_path=True)

    @property
    def is_used_up(self) -> bool:
        return self._host.left <= 0 or (self._left <= 0 and self._host.shared <= 0)

    def take(self, size: int) -> None:
        """Take so much; the last time it may be more than there is."""
        own = max(0, min(size, self._left))
        self._left -= own
        self._host.shared -= size - own
        self._host.left -= size
