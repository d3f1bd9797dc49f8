# SPDX-License-Identifier: Apache-2.0
"""What became of requests, route by route: the counters of the kernel and the gate, read.

A route is known by what it takes, so that its counts go on when its table is replaced: by its table,
virtual host and match, and the how-manieth of that kind it is. Not by its own name: that of an HTTPRoute's
rule is the rule's place, which changes with the rules before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from runtime.tables.enhanced_layout import RouteStat, RouteTaken
from runtime.tables.http_digest import digest

if TYPE_CHECKING:
    from runtime.model.http import RouteMatch, RouteTable

OTHER, UNROUTED, FIRST = 0, 1, 2  # KMESH_STAT_OTHER and so on
STATS = 16384  # KMESH_STATS
CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
# In the order of kmesh_route_stat.codes (runtime/gate/stat.c).
CODES = (200, 201, 204, 206, 301, 302, 304, 400, 401, 403, 404, 429, 500, 502, 503, 504)

_LABEL = 60
_BUCKETS = 26  # KMESH_STAT_BUCKETS


class By(IntEnum):
    """Who served a request: enum kmesh_stat_by."""

    KERNEL = 0
    GATE = 1
    WAYPOINT = 2


EMPTY = RouteStat(
    name=0,
    requests=(0,) * (len(By) * len(CLASSES)),
    request_bytes=(0,) * len(By),
    response_bytes=(0,) * len(By),
    codes=(0,) * len(CODES),
    head_ns=0,
    end_ns=0,
    head=(0,) * _BUCKETS,
    end=(0,) * _BUCKETS,
)


@dataclass(frozen=True, slots=True)
class RouteName:
    """A route, as its configuration names it.

    Attributes:
        table: the route table's name.
        host: the virtual host's.
        domain: the virtual host's first domain.
        label: its own; of one without, what its path is like. Others may have the same.
        index: from 1 on, in its virtual host.
        number: stands for it in the maps.
    """

    table: str
    host: str
    domain: str
    label: str
    index: int
    number: int


def route_names(table: RouteTable) -> list[RouteName]:
    """Names of all routes of a table, numbered through all virtual hosts."""
    found: list[RouteName] = []
    seen: Counter[tuple[str, str]] = Counter()
    for host in table.virtual_hosts:
        domain = host.domains[0] if host.domains else ""
        for index, route in enumerate(host.routes):
            key = (host.name, _spelt(route.match))
            words = (table.name, *key, str(seen[key]))
            seen[key] += 1
            number = digest(b"route", *(word.encode() for word in words))
            label = route.name or _label(route.match)
            found.append(RouteName(table.name, host.name, domain, label, index + 1, number))
    return found


@lru_cache(maxsize=20_000)  # most routes of a table that changes are those of before
def _spelt(match: RouteMatch) -> str:
    return repr(match)


def _label(match: RouteMatch) -> str:
    more = " ..." if match.headers or match.query else ""
    return f"{str(match.path.kind).lower()} {match.path.value}"[:_LABEL] + more


@dataclass(frozen=True, slots=True)
class RouteCounts:
    """One route's counts.

    Attributes:
        taken: requests that the kernel sent to an endpoint, whatever became of them.
        stat: the gate's, of those that are over.
    """

    taken: RouteTaken
    stat: RouteStat

    def requests(self, by: By) -> dict[str, int]:
        """Requests that are over, by the class of their response's code; "none": there was none."""
        at = by * len(CLASSES)
        return dict(zip(CLASSES, self.stat.requests[at : at + len(CLASSES)], strict=True))

    @property
    def hits(self) -> int:
        return sum(self.stat.requests)

    def share(self, by: By) -> int:
        return sum(self.requests(by).values())

    def of_class(self, name: str) -> int:
        return sum(self.requests(by)[name] for by in By)

    def codes(self) -> dict[int, int]:
        """Of the codes that are counted one by one, those that were there."""
        return {code: n for code, n in zip(CODES, self.stat.codes, strict=True) if n}


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """About which time so many requests did not exceed, in seconds; None without any.

    Within a bucket times are taken to lie evenly: the error is at most that of its bounds, which
    are a factor of two apart.
    """
    total = sum(buckets)
    wanted, before = share * total, 0
    for index, count in enumerate(buckets):
        if count and before + count >= wanted:
            low, high = bounds(index)
            return low + (high - low) * (wanted - before) / count
        before += count
    return None


def bounds(bucket: int) -> tuple[float, float]:
    """From and to which time a bucket counts, in seconds."""
    return (2 ** (bucket - 1) if bucket else 0) / 1e6, 2**bucket / 1e6


__all__ = [
    "CLASSES",
    "CODES",
    "EMPTY",
    "FIRST",
    "OTHER",
    "STATS",
    "UNROUTED",
    "By",
    "RouteCounts",
    "RouteName",
    "bounds",
    "quantile",
    "route_names",
]
