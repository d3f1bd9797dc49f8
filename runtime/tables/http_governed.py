# SPDX-License-Identifier: Apache-2.0
"""Reading what the gate is told of a cluster that it governs: for questions, changing nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.tables.enhanced_layout import HttpCluster, HttpClusterKey, HttpMember, HttpMemberKey
from runtime.tables.http_govern import HEALTHY, LEAST, LOCALITIES, NO_BOUND
from runtime.tables.http_turns import less_busy
from runtime.tables.lookup import Share, Tables, unpack_address

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Read:
    """Endpoints with their shares while all of them are used, and the rules in words."""

    endpoints: tuple[Share, ...]
    words: tuple[str, ...]


def read_governed(tables: Tables, number: int) -> Read | None:
    """A cluster as the gate chooses in it; None where the kernel does.

    Shares are those of healthy endpoints of the first priority, by weight: what is ejected now only
    the gate knows.
    """
    key = HttpClusterKey(number).pack()
    found: Read | None = None
    for _ in range(_TRIES):
        value = tables.lookup("http_clusters", key)
        row = HttpCluster.unpack(value) if value else None
        if row is None or not row.members:
            return None
        members = list(_members(tables, row))
        found = Read(tuple(_shares(members)), tuple(_words(row)))
        if len(members) == row.member_count:
            break  # else it is being replaced
    return found


def _members(tables: Tables, row: HttpCluster) -> Iterator[HttpMember]:
    for place in range(row.member_count):
        value = tables.lookup("http_members", HttpMemberKey(row.members, place).pack())
        if value is not None:
            yield HttpMember.unpack(value)


def _shares(members: list[HttpMember]) -> Iterator[Share]:
    healthy = [one for one in members if one.flags & HEALTHY]
    first = min((one.priority for one in healthy), default=0)
    used = [one for one in healthy if one.priority == first]
    total = sum(one.weight for one in used)
    for one in sorted(members, key=lambda one: (one.priority, -one.weight, one.address)):
        percent = round(100 * one.weight / total, 4) if one in used and total else 0.0
        port = int.from_bytes(one.port, "big")
        yield Share(unpack_address(one.address), port, one.weight, percent)


def _words(row: HttpCluster) -> Iterator[str]:
    bounds = {
        "connections": row.max_connections,
        "pending requests": row.max_pending,
        "requests": row.max_requests,
    }
    for what, most in bounds.items():
        if most != NO_BOUND:
            yield f"at most {most} {what}"
    if row.connection_requests:
        yield f"at most {row.connection_requests} requests on a connection"
    rows = {
        "responses 5xx": row.consecutive_5xx,
        "gateway failures": row.consecutive_gateway,
        "failed connections": row.consecutive_local,
    }
    for what, most in rows.items():
        if most:
            yield (
                f"ejected after {most} {what} in a row, for {row.base_ms} ms or longer, "
                f"{row.max_percent} % at a time"
            )
    if row.flags & LEAST:
        yield less_busy(row.choices)
    if row.flags & LOCALITIES:
        yield "localities share by their weights"
