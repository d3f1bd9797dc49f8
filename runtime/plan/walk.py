# SPDX-License-Identifier: Apache-2.0
"""What the kernel would do with a request head: the same walk over the same tables.

bpf/include/kmesh/http/ has the walk that decides; this one explains, on machines without a compiler.
The tests hold the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runtime.tables.http_layout import HttpCell, HttpHead, HttpMove
from runtime.tables.http_numbers import (
    ABSENT,
    DECIDED,
    END,
    FIELDS_MAX,
    HEAD_MAX,
    NO_IDEA,
    NO_ROUTE,
    NO_VHOST,
    ONCE,
    PLACES,
    READ,
    STOPS,
    Place,
    Seen,
    Verdict,
)

_MOVE = len(HttpMove(0, 0, 0, 0, 0, 0).pack())
_CELL = len(HttpCell(0, 0, 0, 0).pack())


class Tables(Protocol):
    """What is walked through, wherever it is from."""

    @property
    def grammar(self) -> bytes: ...
    @property
    def graph(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Content:
    """A grammar and a graph as they were read from the kernel."""

    grammar: bytes
    graph: bytes


@dataclass(frozen=True, slots=True)
class Routed:
    """What became of a head.

    Attributes:
        verdict: OK, or why it was not routed.
        route: number of the route through all virtual hosts; None with `found_host` telling why.
        found_host: whether some virtual host has the request's name.
        steps: of the walk: bytes compared, and ends of values.
        head: where things are in it, if it could be read.
    """

    verdict: Verdict
    route: int | None = None
    found_host: bool = False
    steps: int = 0
    head: HttpHead | None = None

    @classmethod
    def of(cls, verdict: Verdict, head: HttpHead, *, route: int, steps: int) -> Routed:
        """From the numbers of the programs."""
        if verdict is not Verdict.OK:
            return cls(verdict)
        known = None if route in {NO_ROUTE, NO_VHOST} else route
        return cls(verdict, known, route != NO_VHOST, steps, head)


def _move(grammar: bytes, index: int) -> HttpMove:
    return HttpMove.unpack(grammar[index * _MOVE : (index + 1) * _MOVE])


def read(grammar: bytes, data: bytes) -> tuple[Verdict, HttpHead | None]:
    """Read a head: kmesh_http_parse()."""
    state, seen, twice, fields = _move(grammar, 0).next, 0, 0, 0
    start, end = [0] * PLACES, [0] * PLACES
    for at, byte in enumerate(data[:HEAD_MAX]):
        move = _move(grammar, state + byte)
        if move.byte != byte:
            return Verdict(_move(grammar, state).next), None
        state = move.next
        start[move.first] = at
        end[move.last] = at + 1
        twice |= seen & 1 << move.bit
        seen |= 1 << move.bit
        fields += move.field
        if state < STOPS:
            break
    else:
        return Verdict.INCOMPLETE if len(data) < HEAD_MAX else Verdict.TOO_LONG, None
    if state != READ:
        return Verdict(state), None
    if twice & ONCE:
        return Verdict.TWICE, None
    if fields > FIELDS_MAX:
        return Verdict.MANY_FIELDS, None
    return _conclude(data, seen, start, end, at + 1)


def _conclude(
    data: bytes, seen: int, start: list[int], end: list[int], length: int
) -> tuple[Verdict, HttpHead | None]:
    if not seen >> Place.HOST & 1:
        return Verdict.NO_HOST, None
    start[Place.AUTHORITY] = start[Place.HOST]
    end[Place.AUTHORITY] = end[Place.AUTHORITY] or end[Place.HOST]
    start[Place.TARGET], end[Place.TARGET] = start[Place.PATH], start[Place.SPACE]
    for place in (Place.AUTHORITY, Place.TARGET, Place.PATH, Place.METHOD):
        seen |= 1 << place
    size = 0
    if seen >> Place.LENGTH & 1:
        if seen >> Seen.CHUNKED & 1:
            return Verdict.TWO_LENGTHS, None
        size = int(data[start[Place.LENGTH] : end[Place.LENGTH]])
    return Verdict.OK, HttpHead(seen, size, length, tuple(start), tuple(end))


def route(tables: Tables, data: bytes) -> Routed:
    """Read and route the head at the start of some bytes: kmesh_http_match().

    Args:
        tables: from compile_routes(), or the kernel's.
        data: what the client sent: a head, and perhaps more.
    """
    verdict, head = read(tables.grammar, data)
    if head is None:
        return Routed(verdict)
    cell = _cell(tables.graph, 0)
    steps = 0
    while cell.action != DECIDED:
        value = data[head.start[cell.action] : head.end[cell.action]]
        absent = not head.seen >> cell.action & 1
        state, otherwise = cell.next, cell.otherwise
        for symbol in value:
            steps += 1
            cell = _cell(tables.graph, state + symbol)
            state, otherwise = (
                (cell.next, cell.otherwise) if cell.byte == symbol else (otherwise, otherwise)
            )
        symbol = ABSENT if absent else END
        while (cell := _cell(tables.graph, state + symbol)).byte != symbol:
            steps += 1
            state = otherwise
        steps += 1
    decided = Verdict.UNDECIDED if cell.next == NO_IDEA else Verdict.OK
    return Routed.of(decided, head, route=cell.next, steps=steps - 1)


def _cell(graph: bytes, index: int) -> HttpCell:
    return HttpCell.unpack(graph[index * _CELL : (index + 1) * _CELL])


def values(head: HttpHead, data: bytes) -> dict[int, bytes]:
    """What stands at the places of a head."""
    seen = [place for place in range(1, PLACES) if head.seen >> place & 1]
    return {place: data[head.start[place] : head.end[place]] for place in seen}
