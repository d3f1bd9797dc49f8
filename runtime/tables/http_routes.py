# SPDX-License-Identifier: Apache-2.0
"""A route table as the bytes of the maps: what reads heads for it, and what routes them.

A pure function: the same table gives the same bytes, under the same numbers. Where a route cannot be
expressed it is not left out, or requests that are its would go to the next that fits: it takes what
could be its, and a proxy has to judge; `CompiledRoutes.rough` says which these are, and why.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from runtime.model.http import HttpPort, PathKind, RouteTable, TextKind
from runtime.tables.http_conditions import Conditions, Name, Text, names_of, slots_for
from runtime.tables.http_grammar import AS_ISTIO, GrammarTooLargeError, Paths, grammar
from runtime.tables.http_graph import Graph, GraphBuilder, Node
from runtime.tables.http_layout import HttpSet
from runtime.tables.http_numbers import ABSENT, DECIDED, END, NO_IDEA
from runtime.tables.http_rows import Rows, RowsFullError
from runtime.tables.http_shapes import GraphTooLargeError

CELL = 4  # words of struct kmesh_http_cell
MOST_CELLS = 1 << 22
_UNUSED = 0xFFFFFFFF
_WIDTH = 256  # a step may be for any byte


class TableTooLargeError(ValueError):
    """No part of the table can be expressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRoutes:
    """The tables for one route table.

    Attributes:
        set: their numbers, as the programs look them up.
        grammar: struct kmesh_http_grammar.
        graph: cells, end to end.
        rough: by the number of a route (through all virtual hosts), why it takes requests that may
            not be its: they have to go to a proxy.
        undecided: by the number of a route that the graph has no room to tell from others for every
            request, why: of those that may be its some get the verdict UNDECIDED, and none a wrong route.
        slots: where the values of headers and query parameters are noted, by (is it one of the
            query's, name); what was wanted and is not there did not fit.
    """

    set: HttpSet
    grammar: bytes
    graph: bytes
    rough: dict[int, str]
    undecided: dict[int, str]
    slots: dict[Name, int]


def compile_routes(
    table: RouteTable, *, wanted: Iterable[Name] = (), port: HttpPort | None = None
) -> CompiledRoutes:
    """Compile a route table.

    Args:
        table: with routes in the order in which they are tried.
        wanted: headers and query parameters whose values are needed besides, for other than routing.
        port: whose requests these are; None stands for Istio's defaults.

    Raises:
        TableTooLargeError: it is too large as a whole.
    """
    paths = Paths(port.normalize_path, port.merge_slashes) if port else AS_ISTIO
    moves, slots = _grammar(names_of(table, wanted), paths)
    graph, rough, undecided = _graph(table, slots)
    cells = _cells(graph)
    return CompiledRoutes(
        set=HttpSet(_digest(moves), _digest(cells)),
        grammar=moves,
        graph=cells,
        rough={number: "; ".join(reasons) for number, reasons in rough.items()},
        undecided=undecided,
        slots=slots,
    )


def _digest(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), sys.byteorder) or 1


def _grammar(names: list[Name], paths: Paths) -> tuple[bytes, dict[Name, int]]:
    while True:
        slots = slots_for(names)
        headers = tuple((name, place) for (query, name), place in slots.items() if not query)
        parameters = tuple((name, place) for (query, name), place in slots.items() if query)
        try:
            return grammar(headers, parameters, paths), slots
        except GrammarTooLargeError:
            names = names[: min(len(names), len(slots)) - 1]


def _graph(
    table: RouteTable, slots: dict[Name, int]
) -> tuple[Graph, dict[int, tuple[str, ...]], dict[int, str]]:
    """The graph, if need be without the expressions that make it too large, the largest first."""
    conditions = Conditions(slots)
    while True:
        builder = GraphBuilder(conditions)
        try:
            return builder.build(table), builder.reasons, builder.undecided
        except GraphTooLargeError as error:
            worst = sorted(_expressions(error.texts), key=lambda one: (-_size(one), one.value))
            if not worst:
                raise TableTooLargeError(f"route table {table.name}: {error}") from error
            for text in worst[: max(1, len(worst) // 4)]:
                conditions.given_up[text] = (
                    f"regular expression {text.value!r}: together with the others its automaton has {error}"
                )


def _expressions(texts: Iterable[Text]) -> Iterator[Text]:
    return (one for one in texts if one.kind in {PathKind.REGEX, TextKind.REGEX})


def _size(text: Text) -> int:
    """How much an expression is likely to add: what it repeats, most of all."""
    return sum(text.value.count(sign) for sign in "*+{") * 1000 + len(text.value)


class _Packer:
    """Rows of all states of all nodes, and the cells in them."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._rows = [[0] * len(node.dfa.meaning) for node in graph.nodes]
        self._shapes = [
            (self._symbols(node, state), number, state)
            for number, node in enumerate(graph.nodes)
            for state in range(len(node.dfa.meaning))
        ]
        self._shapes.sort(key=lambda shape: -len(shape[0]))
        rows = Rows(first=1, width=_WIDTH, limit=MOST_CELLS)
        try:
            for symbols, number, state in self._shapes:
                self._rows[number][state] = rows.place(symbols)
        except RowsFullError as error:
            raise TableTooLargeError(str(error)) from error
        # Every step that can be taken is inside.
        self.cells = array("I", [_UNUSED]) * (CELL * (rows.size + _WIDTH))

    @staticmethod
    def _symbols(node: Node, state: int) -> tuple[int, ...]:
        dfa = node.dfa
        symbols = [*dfa.steps[state]]
        rest = dfa.otherwise[state]
        if rest == state or dfa.meaning[rest] != dfa.meaning[state]:
            symbols.append(END)
        if state == 0:
            symbols.append(ABSENT)
        return tuple(symbols)

    def run(self) -> bytes:
        self._write(0, 0, self._meaning(self._graph.root))
        for symbols, number, state in self._shapes:
            node, rows = self._graph.nodes[number], self._rows[number]
            dfa = node.dfa
            steps, row = dfa.steps[state], rows[state]
            for symbol in symbols:
                if symbol == END:
                    step = self._meaning(dfa.meaning[state])
                elif symbol == ABSENT:
                    step = self._meaning(node.absent)
                else:
                    to = steps[symbol]
                    step = rows[to], rows[dfa.otherwise[to]], 0
                self._write(row + symbol, symbol, step)
        return self.cells.tobytes()

    def _meaning(self, label: int) -> tuple[int, int, int]:
        if label < 0:
            return NO_IDEA, 0, DECIDED
        is_node, which = self._graph.labels[label]
        if not is_node:
            return which, 0, DECIDED
        node, rows = self._graph.nodes[which], self._rows[which]
        return rows[0], rows[node.dfa.otherwise[0]], node.place

    def _write(self, index: int, symbol: int, step: tuple[int, int, int]) -> None:
        at = index * CELL
        self.cells[at] = step[0]
        self.cells[at + 1] = step[1]
        self.cells[at + 2] = symbol
        self.cells[at + 3] = step[2]


def _cells(graph: Graph) -> bytes:
    return _Packer(graph).run()
