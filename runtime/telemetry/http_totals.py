# SPDX-License-Identifier: Apache-2.0
"""Counts of requests summed up in series that never go down, whatever becomes of routes and elements.

A series is a service and a route's name: routes of one name are one series. There are no more than a
bound; what comes later is summed up in the series of which everything is "-", as is what no route took.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runtime.kernel.http_stats import Counted
from runtime.tables.enhanced_layout import RouteStat
from runtime.tables.http_stats import EMPTY, RouteName

UNKNOWN = "-"
MOST_SERIES = 500
_FIELDS = RouteStat._fields[1:]


class Series(NamedTuple):
    """What a series is called."""

    service: str
    route: str


_REST = Series(UNKNOWN, UNKNOWN)


def service_of(name: RouteName) -> str:
    """The host that a route's virtual host is for, without a port; its name, where it is for all."""
    if name.domain in {"", "*"}:
        return name.host or UNKNOWN
    host, _, port = name.domain.rpartition(":")
    return host if host and port.isdigit() else name.domain


def series_of(name: RouteName) -> Series:
    return Series(service_of(name), name.label)


def plus(one: RouteStat, other: RouteStat) -> RouteStat:
    """Two counts together."""
    return _combined(one, other, 1)


def _combined(one: RouteStat, other: RouteStat, sign: int) -> RouteStat:
    def both(field: str) -> Any:
        a, b = getattr(one, field), getattr(other, field)
        if isinstance(a, int):
            return a + sign * b
        return tuple(x + sign * y for x, y in zip(a, b, strict=True))

    return RouteStat(0, *(both(field) for field in _FIELDS))


def _grown(now: RouteStat, before: RouteStat) -> RouteStat:
    """What came since; all of it, where the element was another's meanwhile."""
    if sum(now.requests) < sum(before.requests):
        return now
    return _combined(now, before, -1)


@dataclass(slots=True)
class Totals:
    """The series.

    Attributes:
        most: how many there may be beside the one for the rest.
        series: their sums so far.
        folded: routes that are summed up in the rest.
    """

    most: int = MOST_SERIES
    series: dict[Series, RouteStat] = field(default_factory=dict)
    folded: int = 0
    _before: dict[int | str, RouteStat] = field(default_factory=dict)

    def take(self, routes: Iterable[Counted], rest: Iterable[tuple[str, RouteStat]]) -> None:
        """Add what came since the last time.

        Args:
            routes: those in use. A series of which none is left goes.
            rest: what was counted for no route, under a name of its own each.
        """
        known: set[int | str] = set()
        alive = {_REST}
        self.folded = 0
        for one in routes:
            assert one.name is not None
            series = self._place(series_of(one.name))
            self.folded += series is _REST
            alive.add(series)
            known.add(one.name.number)
            self._add(series, one.name.number, one.counts.stat)
        for key, stat in rest:
            known.add(key)
            self._add(_REST, key, stat)
        for gone in self._before.keys() - known:
            del self._before[gone]
        for gone_series in self.series.keys() - alive:
            del self.series[gone_series]

    def _place(self, wanted: Series) -> Series:
        if wanted in self.series or len(self.series) < self.most:
            return wanted
        return _REST

    def _add(self, series: Series, key: int | str, stat: RouteStat) -> None:
        grown = _grown(stat, self._before.get(key, EMPTY))
        self._before[key] = stat
        self.series[series] = plus(self.series.get(series, EMPTY), grown)
