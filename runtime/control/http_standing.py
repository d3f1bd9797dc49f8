# SPDX-License-Identifier: Apache-2.0
"""What became of the plan in the kernel: which routes really are a waypoint's, and why, for whoever asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.kernel.http_ports import Written
from runtime.model.http import RouteTable
from runtime.plan.planned import Place
from runtime.tables.http_stats import route_names

PortKey = tuple[str, str]  # of the listener and its table
RouteAt = tuple[str, int]  # a virtual host, and the number of a route in it, from 1 on
Row = Mapping[str, Any]
_REASONS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One table in the kernel.

    Attributes:
        trouble: why it is not what was planned; "" where it is.
        shut: nothing of it is served without a waypoint.
        waypoint: why a route is a waypoint's.
        partly: why some requests that may be a route's are a waypoint's, and the others are not.
    """

    trouble: str = ""
    shut: bool = False
    waypoint: Mapping[RouteAt, str] = field(default_factory=dict)
    partly: Mapping[RouteAt, str] = field(default_factory=dict)


Standings = Mapping[PortKey, Standing]


def standing_of(table: RouteTable, written: Written, *, trouble: str, shut: bool) -> Standing:
    """Where the routes of a table are that was written."""
    if not (written.waypoint or written.partly):
        return Standing(trouble=trouble, shut=shut)
    at = [(name.host, name.index) for name in route_names(table)]
    return Standing(
        trouble=trouble,
        shut=shut,
        waypoint={at[number]: why for number, why in written.waypoint.items()},
        partly={at[number]: why for number, why in written.partly.items()},
    )


def as_written(row: Row, standings: Standings) -> Row:
    """A row of the plan (runtime/plan/report.py) as it is in the kernel."""
    found = standings.get((row["listener"], row["table"]))
    if found is None:
        return row
    at = (row["virtual_host"] or "", row["index"])
    why = list(row["why"])
    if found.trouble:
        why.append(found.trouble)
    if found.shut or at in found.waypoint:
        # What was planned to be the waypoint's has told why.
        why = why or [found.waypoint[at]]
        return {**row, "place": str(Place.WAYPOINT), "able": False, "why": why}
    if row["place"] == Place.KERNEL and at in found.partly:
        why.append(found.partly[at])
    return {**row, "why": why}


def summed(standings: Iterable[Standing]) -> Row:
    """How many routes are a waypoint's, and for which reasons most of them, ready for JSON."""
    reasons: Counter[str] = Counter()
    partly = shut = 0
    for one in standings:
        partly += len(one.partly)
        shut += one.shut
        if not one.shut:
            reasons.update(one.waypoint.values())
    most = [{"why": why, "routes": count} for why, count in reasons.most_common(_REASONS)]
    return {"routes": reasons.total(), "partly": partly, "tables": shut, "reasons": most}
