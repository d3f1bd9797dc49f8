# SPDX-License-Identifier: Apache-2.0
"""Elements for the counters of routes: given out by name, kept over new tables and daemons, taken back.

The elements are in the kernel with their routes' names, so that a daemon finds those of the one before. One
that is taken back is not given to another route for a while: requests of the old one may be on their
way. A route that comes back meanwhile goes on counting where it was.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.bpf.maps import BpfMap
from runtime.tables.enhanced_layout import GateStat, RouteStat, RouteTaken
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_stats import (
    EMPTY,
    FIRST,
    OTHER,
    UNROUTED,
    RouteCounts,
    RouteName,
    route_names,
)

if TYPE_CHECKING:
    from runtime.model.http import RouteTable

REST_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Counted:
    """A route and its counts; `name` is None of what has no element or no route."""

    name: RouteName | None
    counts: RouteCounts


class RouteStats:
    """The counters of routes. Readers may be other threads.

    Args:
        maps: the path's maps, open.
        clock: seconds.

    Attributes:
        folded: routes without an element of their own.
    """

    def __init__(
        self, maps: Mapping[str, BpfMap], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stats, self._taken, self._gate = (
            maps["route_stats"],
            maps["route_taken"],
            maps["gate_stat"],
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._element: dict[int, int] = {}  # by a route's number
        self._names: dict[int, RouteName] = {}  # of routes that are in use, by element
        self._of_table: dict[int, frozenset[int]] = {}
        self._resting: dict[int, float] = {}  # elements out of use, since when
        self._next = FIRST
        self._folded: dict[int, int] = {}  # by table
        self._adopt()

    def _adopt(self) -> None:
        """What a daemon before this one gave out."""
        for key, value in self._stats.items(chunk=1024):
            index, number = struct.unpack("=I", key)[0], struct.unpack_from("=Q", value)[0]
            if number:
                self._element[number] = index
                self._next = max(self._next, index + 1)
        used = set(self._element.values())
        holes = [index for index in range(FIRST, self._next) if index not in used]
        self._free = holes

    @property
    def folded(self) -> int:
        return sum(self._folded.values())

    def assign(self, table: RouteTable) -> list[int]:
        """An element for each route of a table, `OTHER` where there is none left."""
        with self._lock:
            return [self._element_for(name) for name in route_names(table)]

    def _element_for(self, name: RouteName) -> int:
        index = self._element.get(name.number)
        if index is None:
            index = self._take()
            if index is None:
                return OTHER
            self._element[name.number] = index
            self._clear(index, name.number)
        self._resting.pop(index, None)
        self._names[index] = name
        return index

    def _take(self) -> int | None:
        if self._free:
            return self._free.pop()
        if self._next < self._stats.max_entries:
            self._next += 1
            return self._next - 1
        now = self._clock()
        oldest = min(self._resting, key=self._resting.__getitem__, default=None)
        if oldest is None or now - self._resting[oldest] < REST_SECONDS:
            return None
        del self._resting[oldest]
        number = RouteStat.unpack(self._stats.lookup(_key(oldest)) or b"").name
        self._element.pop(number, None)
        return oldest

    def _clear(self, index: int, number: int) -> None:
        self._taken.update_each(_key(index), bytes(self._taken.value_size))
        self._stats.update(_key(index), EMPTY._replace(name=number).pack())

    def hold(self, table: int, elements: Iterable[int]) -> None:
        """A table of this number has these elements."""
        given = list(elements)
        with self._lock:
            self._of_table[table] = frozenset(given) - {OTHER}
            self._folded[table] = given.count(OTHER)

    def keep(self, tables: Iterable[int]) -> None:
        """There are no other tables any more: what only others had is out of use."""
        kept = set(tables)
        with self._lock:
            for gone in [number for number in self._of_table if number not in kept]:
                del self._of_table[gone], self._folded[gone]
            if kept - set(self._of_table):
                return  # of a daemon before this one: its elements cannot be told yet
            used = frozenset().union(*self._of_table.values())
            now = self._clock()
            for index in set(self._element.values()) - used:
                self._resting.setdefault(index, now)
                self._names.pop(index, None)

    # Reading.

    def read(self) -> Iterator[Counted]:
        """The routes that are in use; then what was counted for none."""
        with self._lock:
            names = dict(self._names)
        for index, name in sorted(names.items()):
            yield Counted(name, self._counts(index))

    def other(self) -> RouteCounts:
        """Of the routes for which there was no element."""
        return self._counts(OTHER)

    def unrouted(self) -> RouteCounts:
        """Of requests that no route took, or that were refused."""
        return self._counts(UNROUTED)

    def by_number(self) -> dict[int, RouteName]:
        """The routes in use, by the number that stands for them."""
        with self._lock:
            return {name.number: name for name in self._names.values()}

    def _counts(self, index: int) -> RouteCounts:
        value = self._stats.lookup(_key(index))
        return RouteCounts(_summed(self._taken, index), RouteStat.unpack(value) if value else EMPTY)

    def verdicts(self) -> dict[str, int]:
        """Heads that were not routed, by why."""
        value = self._gate.lookup(_key(0))
        counted = GateStat.unpack(value or bytes(self._gate.value_size)).verdicts
        return {
            verdict.name.lower(): counted[verdict]
            for verdict in Verdict
            if verdict not in {Verdict.OK, Verdict.INCOMPLETE}
        }

    def log_dropped(self) -> int:
        """Lines of the access log that nobody took from the gate."""
        value = self._gate.lookup(_key(0))
        return GateStat.unpack(value or bytes(self._gate.value_size)).log_dropped


def _key(index: int) -> bytes:
    return struct.pack("=I", index)


def _summed(taken: BpfMap, index: int) -> RouteTaken:
    """Over all processors."""
    each = [RouteTaken.unpack(value) for value in taken.lookup_each(_key(index))]
    return RouteTaken(sum(one.requests for one in each), sum(one.sent for one in each))


__all__ = ["Counted", "RouteStats"]
