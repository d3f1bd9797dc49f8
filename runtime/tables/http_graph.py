# SPDX-License-Identifier: Apache-2.0
"""The decision graph of a route table: which value to look at next, and what it means.

A node is an automaton over one value. Its root tells virtual hosts apart; a node below knows which
routes are still possible, and by the values seen so far no more about them. What is the same is made
once. At each end stands the next node, or the outcome: a route, numbered through all virtual hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.model.http import RouteTable, VirtualHost
from runtime.tables.http_candidates import Candidate, next_place
from runtime.tables.http_conditions import Conditions
from runtime.tables.http_domains import Domains
from runtime.tables.http_minimise import minimise
from runtime.tables.http_numbers import NO_IDEA, NO_ROUTE, NO_VHOST, Place
from runtime.tables.http_room import HostRoom, Room, entitled
from runtime.tables.http_shapes import MOST_ALIKE, MOST_STATES, Shapes, determinise
from runtime.tables.http_union import Dfa


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
        undecided: by the number of a route, why some requests that might be for it are left undecided.
    """

    def __init__(self, conditions: Conditions) -> None:
        self.reasons: dict[int, tuple[str, ...]] = {}
        self.undecided: dict[int, str] = {}
        self._conditions = conditions
        self._shapes = Shapes(conditions)
        self._entitled: list[int] = []  # by the number of a route
        self._graph = Graph()
        self._labels: dict[tuple[bool, int], int] = {}
        self._known: dict[tuple[Candidate, ...], int] = {}
        self._same: dict[tuple[int, int, tuple[int, ...]], int] = {}
        self._no_idea = self._label(False, NO_IDEA)
        self._states = 0

    def build(self, table: RouteTable) -> Graph:
        """The graph.

        Raises:
            GraphTooLargeError: there would be too much of it.
        """
        hosts = [self._candidates(host) for host in table.virtual_hosts]
        domains = Domains(table)
        nobody = self._label(False, NO_VHOST)

        def meaning(found: frozenset[int]) -> int:
            host = domains.best(found)
            return nobody if host is None else self._of_host(hosts[host])

        place = Place.HOST if table.ignore_port_in_host else Place.AUTHORITY
        dfa = determinise(domains.union, meaning, (), limit=MOST_STATES)
        self._graph.root = self._add(Node(place, minimise(dfa), nobody))
        return self._graph

    def _candidates(self, host: VirtualHost) -> tuple[Candidate, ...]:
        """A virtual host's routes, up to the first that takes everything."""
        candidates: list[Candidate] = []
        takes_all = False
        for route in host.routes:
            number = len(self._entitled)
            found, reasons = self._conditions.of(route)
            if reasons:
                self.reasons[number] = reasons
            self._entitled.append(entitled(found))
            if not takes_all:
                candidates.append((number, self._shapes.numbers(found)))
            takes_all |= not found
        return tuple(candidates)

    def _label(self, is_node: bool, number: int) -> int:  # noqa: FBT001 - half of a key
        key = is_node, number
        if key not in self._labels:
            self._labels[key] = len(self._graph.labels)
            self._graph.labels.append(key)
        return self._labels[key]

    def _add(self, node: Node) -> int:
        self._states += len(node.dfa.meaning)
        self._graph.nodes.append(node)
        return self._label(True, len(self._graph.nodes) - 1)

    def _of_host(self, candidates: tuple[Candidate, ...]) -> int:
        size = self._entitled_to(candidates)
        return self._node(candidates, Room(HostRoom(size), size, is_behind_path=False))

    def _entitled_to(self, candidates: Sequence[Candidate]) -> int:
        return sum([self._entitled[number] for number, _ in candidates])

    def _node(self, candidates: tuple[Candidate, ...], room: Room) -> int:
        """The label for these candidates, of which the first that holds is chosen."""
        if not candidates:
            return self._label(False, NO_ROUTE)
        if not candidates[0][1]:
            return self._label(False, candidates[0][0])
        label = self._known.get(candidates)
        if label is None:
            label = self._test(candidates, room)
            if label != self._no_idea:
                self._known[candidates] = label
        return label

    def _test(self, candidates: tuple[Candidate, ...], room: Room) -> int:
        is_over = room.is_used_up or self._states > MOST_STATES // 2
        if is_over and room.is_behind_path:
            return self._give_up(candidates)
        place = next_place(candidates, self._shapes.conditions)
        if is_over and place != Place.PATH:
            return self._give_up(candidates)
        if place == Place.PATH or len(candidates) > MOST_ALIKE:
            return self._by_long_list(candidates, place, room)
        return self._by_shape(candidates, place, room)

    def _give_up(self, candidates: tuple[Candidate, ...]) -> int:
        """What was spent on them was in vain: they bring no room to other paths, lest each tries the same."""
        told = (
            "some requests that may be its are a waypoint's: to tell it from "
            f"{len(candidates) - 1} other routes takes more than its part of the tables"
        )
        for number, _ in candidates:
            self.undecided.setdefault(number, told)
            self._entitled[number] = 0
        return self._no_idea

    def _by_long_list(self, candidates: tuple[Candidate, ...], place: int, room: Room) -> int:
        split = [self._shapes.split(asked, place) for _, asked in candidates]
        after = [(number, left) for (number, _), (_, left) in zip(candidates, split, strict=True)]
        is_path = place == Place.PATH

        def meaning(indices: Sequence[int]) -> int:
            left = tuple([after[index] for index in indices])
            inside = room.behind_path(self._entitled_to(left)) if is_path else room
            return self._node(left, inside)

        if not is_path:
            room.take(len(candidates))
        dfa, absent = self._shapes.make(split, meaning, limit=MOST_STATES - self._states)
        if not is_path:
            room.take(len(dfa.meaning))
        return self._add(Node(place, minimise(dfa), absent))

    def _by_shape(self, candidates: tuple[Candidate, ...], place: int, room: Room) -> int:
        split = [self._shapes.split(asked, place) for _, asked in candidates]
        shape = self._shapes.of(split, limit=MOST_STATES - self._states)
        room.take(shape.cost + len(candidates))
        labels: list[int] = []
        for outcome in shape.outcomes:
            left = tuple([(candidates[index][0], split[index][1]) for index in outcome])
            labels.append(self._node(left, room))
        if len(set(labels)) == 1:
            return labels[0]
        key = place, id(shape), tuple(labels)
        if key not in self._same:
            dfa = shape.dfa
            dfa = Dfa([labels[one] for one in dfa.meaning], dfa.steps, dfa.otherwise)
            if len(set(labels)) < len(labels):
                dfa = minimise(dfa)
            self._same[key] = self._add(Node(place, dfa, labels[shape.absent]))
        return self._same[key]
