# SPDX-License-Identifier: Apache-2.0
"""The decision graph of a route table: which value to look at next, and what it means.

A node is an automaton over one value. Its root tells virtual hosts apart; a node below knows which
routes are still possible, and by the values seen so far no more about them. What is the same is made
once. At each end stands the next node, or the outcome: a route, numbered through all virtual hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge

from runtime.model.http import PathKind, RouteTable, TextKind
from runtime.tables.http_conditions import Condition, Conditions, Text
from runtime.tables.http_minimise import minimise
from runtime.tables.http_numbers import NO_ROUTE, NO_VHOST, Place
from runtime.tables.http_union import Dfa, TooManyStatesError, Union

MOST_STATES = 2_000_000  # of a table
# Beyond the letters of its texts: what expressions may add to an automaton.
_MOST_BY_EXPRESSIONS = 30_000

Candidate = tuple[int, tuple[Condition, ...]]  # a route, and what is still asked of the request


class GraphTooLargeError(ValueError):
    """The table does not fit; `texts` are the tests that it would help to do without."""

    def __init__(self, texts: Sequence[Text], reason: str) -> None:
        super().__init__(reason)
        self.texts = texts


@dataclass(frozen=True, slots=True)
class Node:
    """A place, the automaton for its value, and the meaning of its absence; meanings are labels."""

    place: int
    dfa: Dfa
    absent: int


@dataclass(slots=True)
class Graph:
    """`labels`: an outcome, or a node by its number. `root` is a label as well."""

    nodes: list[Node] = field(default_factory=list)
    labels: list[tuple[bool, int]] = field(default_factory=list)  # whether it is a node; which
    root: int = 0


class GraphBuilder:
    """Builds the graph of a table.

    Args:
        conditions: of the table's routes.

    Attributes:
        reasons: by the number of a route, why it takes more requests than it should.
    """

    def __init__(self, conditions: Conditions) -> None:
        self.reasons: dict[int, tuple[str, ...]] = {}
        self._conditions = conditions
        self._graph = Graph()
        self._labels: dict[tuple[bool, int], int] = {}
        self._known: dict[tuple[Candidate, ...], int] = {}
        self._states = 0

    def build(self, table: RouteTable) -> Graph:
        """The graph.

        Raises:
            GraphTooLargeError: there would be too much of it.
        """
        number = 0
        hosts: list[list[Candidate]] = []
        for host in table.virtual_hosts:
            candidates: list[Candidate] = []
            for route in host.routes:
                found, reasons = self._conditions.of(route)
                if reasons:
                    self.reasons[number] = reasons
                candidates.append((number, found))
                number += 1
            hosts.append(candidates)
        self._graph.root = self._host_node(table, hosts)
        return self._graph

    def _label(self, is_node: bool, number: int) -> int:  # noqa: FBT001 - half of a key
        key = is_node, number
        if key not in self._labels:
            self._labels[key] = len(self._graph.labels)
            self._graph.labels.append(key)
        return self._labels[key]

    def _add(
        self, place: int, union: Union, meaning: Callable[[frozenset[int]], int], absent: int,
        texts: Sequence[Text],
    ) -> int:  # fmt: skip
        limit = MOST_STATES - self._states
        if union.has_expressions:
            limit = min(limit, union.size + _MOST_BY_EXPRESSIONS)
        try:
            dfa = union.determinise(meaning, limit=limit)
        except TooManyStatesError as error:
            raise GraphTooLargeError(texts, str(error)) from error
        dfa = minimise(dfa)
        self._states += len(dfa.meaning)
        self._graph.nodes.append(Node(place, dfa, absent))
        return self._label(True, len(self._graph.nodes) - 1)

    def _host_node(self, table: RouteTable, hosts: list[list[Candidate]]) -> int:
        domains = _Domains(table)
        nobody = self._label(False, NO_VHOST)

        def meaning(found: frozenset[int]) -> int:
            host = domains.best(found)
            return nobody if host is None else self._node(tuple(_cut(hosts[host])))

        place = Place.HOST if table.ignore_port_in_host else Place.AUTHORITY
        return self._add(place, domains.union, meaning, nobody, ())

    def _node(self, candidates: tuple[Candidate, ...]) -> int:
        """The label for these candidates, of which the first that holds is chosen."""
        if not candidates:
            return self._label(False, NO_ROUTE)
        if not candidates[0][1]:
            return self._label(False, candidates[0][0])
        label = self._known.get(candidates)
        if label is None:
            label = self._known[candidates] = self._test(candidates)
        return label

    def _test(self, candidates: tuple[Candidate, ...]) -> int:
        place = min((one[1][0] for one in candidates if one[1]), key=lambda first: first.rank).place
        chooser = _Chooser(candidates, place)
        union = Union()
        for text, number in chooser.texts.items():
            if text.kind in {PathKind.REGEX, TextKind.REGEX}:
                union.add_expression(number, self._conditions.expression(text.value))
            else:
                union.add_text(number, text.kind, text.value, ignore_case=text.ignore_case)

        def meaning(found: frozenset[int]) -> int:
            return self._node(tuple(_cut(chooser.holding(found))))

        absent = self._node(tuple(_cut(chooser.absent())))
        return self._add(place, union, meaning, absent, tuple(chooser.texts))


def _cut(candidates: Iterator[Candidate] | list[Candidate]) -> Iterator[Candidate]:
    """Those up to the first that nothing more is asked of: it is chosen before all others."""
    for one in candidates:
        yield one
        if not one[1]:
            return


class _Domains:
    """Domains of virtual hosts, of which the closest counts: exact, suffix, prefix, any."""

    def __init__(self, table: RouteTable) -> None:
        self.union = Union()
        self._found: list[tuple[tuple[int, int], int]] = []  # how close, virtual host
        self._not_itself: dict[int, int] = {}
        for index, host in enumerate(table.virtual_hosts):
            for domain in host.domains:
                self._add(index, domain)

    def _add(self, host: int, domain: str) -> None:
        if domain == "*":
            self._pattern(TextKind.PRESENT, "", (0, 0), host)
        elif domain.startswith("*"):
            self._wildcard(TextKind.SUFFIX, domain[1:], (2, len(domain)), host)
        elif domain.endswith("*"):
            self._wildcard(TextKind.PREFIX, domain[:-1], (1, len(domain)), host)
        else:
            self._pattern(TextKind.EXACT, domain, (3, 0), host)

    def _pattern(self, kind: TextKind, text: str, close: tuple[int, int], host: int) -> int:
        number = len(self._found)
        self._found.append((close, host))
        self.union.add_text(number, kind, text, ignore_case=True)
        return number

    def _wildcard(self, kind: TextKind, text: str, close: tuple[int, int], host: int) -> None:
        """The * stands for one character or more."""
        number = self._pattern(kind, text, close, host)
        self._not_itself[self._pattern(TextKind.EXACT, text, (-1, 0), host)] = number

    def best(self, found: frozenset[int]) -> int | None:
        """The virtual host for a set of patterns that match."""
        gone = {self._not_itself[one] for one in found if one in self._not_itself}
        left = [self._found[one] for one in found - gone]
        close, host = max(left, default=((-1, 0), 0), key=lambda one: one[0])
        return None if close[0] < 0 else host


class _Chooser:
    """Which candidates are left when it is known which tests of one place's value pass."""

    def __init__(self, candidates: tuple[Candidate, ...], place: int) -> None:
        self.texts: dict[Text, int] = {}
        self._all = [self._split(number, conditions, place) for number, conditions in candidates]
        self._unasked = [index for index, one in enumerate(self._all) if not one[0]]
        self._inverted: list[int] = []
        self._by_text: dict[int, list[int]] = {}
        for index, (here, _left) in enumerate(self._all):
            wanted = [self.texts[one.text] for one in here if not one.invert]
            if wanted:
                self._by_text.setdefault(wanted[0], []).append(index)
            elif here:
                self._inverted.append(index)

    def _split(
        self, number: int, conditions: tuple[Condition, ...], place: int
    ) -> tuple[tuple[Condition, ...], Candidate]:
        here = tuple(one for one in conditions if one.place == place)
        for one in here:
            self.texts.setdefault(one.text, len(self.texts))
        return here, (number, conditions[len(here) :])

    def holding(self, found: frozenset[int]) -> Iterator[Candidate]:
        """Candidates in their order, with what is asked of other places."""
        asked = sorted(index for text in found for index in self._by_text.get(text, ()))
        for index in merge(self._unasked, asked, self._inverted):
            here, left = self._all[index]
            if all((self.texts[one.text] in found) != one.invert for one in here):
                yield left

    def absent(self) -> Iterator[Candidate]:
        """The same, where there is no value."""
        for here, left in self._all:
            if all(one.absent for one in here):
                yield left
