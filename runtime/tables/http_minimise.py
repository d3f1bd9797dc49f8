# SPDX-License-Identifier: Apache-2.0
"""The smallest automaton that tells the same things apart, with few steps to write down.

States that mean the same and lead to the same are one. Most of these automata are tries with loops
at single states, in which that is found in one pass from the ends. Where expressions make longer
ways round, states are told apart by refinement (Moore), unless there are very many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from runtime.tables.http_regex_syntax import ALPHABET
from runtime.tables.http_union import Dfa

_LETTERS = len(ALPHABET)
_SELF = -1
_NEVER = -1
_MOST_REFINED = 5000
Shape = tuple[int, int, tuple[tuple[int, int], ...]]  # meaning, most frequent step, the others


def minimise(dfa: Dfa) -> Dfa:
    """An automaton whose first state is number 0, whose `otherwise` have themselves as `otherwise`."""
    merger = _Merger(dfa)
    shapes, first = merger.run()
    if merger.has_rounds and len(shapes) <= _MOST_REFINED:
        shapes, first = _refined(shapes, first)
    return _rooted(shapes, first)


class _Merger:
    def __init__(self, dfa: Dfa) -> None:
        self._dfa = dfa
        self._merged = [_SELF] * len(dfa.meaning)  # the new state of each old one
        self._known: dict[Shape, int] = {}
        self._shapes: list[Shape] = []
        self.has_rounds = False

    def run(self) -> tuple[list[Shape], int]:
        """New states by their shapes, and which is the first."""
        for group in _components(self._dfa):
            if len(group) == 1:
                state = group[0]
                shape = self._shape(state, {state: _SELF})
                same = self._loop_like(shape)
                self._merged[state] = self._intern(shape) if same is None else same
            else:
                self.has_rounds = True
                self._merge(group)
        return self._shapes, self._merged[0]

    def _intern(self, shape: Shape) -> int:
        number = self._known.get(shape)
        if number is None:
            number = self._known[shape] = len(self._shapes)
            self._shapes.append(shape)
        return number

    def _loop_like(self, shape: Shape) -> int | None:
        """A state with a loop at itself that this one is the same as, once it has led there."""
        meaning, most, others = shape
        for to in {most, *(to for _, to in others)}:
            around = (meaning, _SELF if most == to else most,
                      tuple((byte, _SELF if one == to else one) for byte, one in others))  # fmt: skip
            if to != _SELF and around != shape and self._known.get(around) == to:
                return to
        return None

    def _shape(self, state: int, classes: dict[int, int]) -> Shape:
        """Its steps in terms of new states, and of `classes` (negative) where there is none yet."""
        dfa, merged = self._dfa, self._merged
        steps = {
            byte: classes[to] if to in classes else merged[to]
            for byte, to in dfa.steps[state].items()
        }
        rest = dfa.otherwise[state]
        return _shaped(
            dfa.meaning[state], steps, classes[rest] if rest in classes else merged[rest]
        )

    def _merge(self, group: list[int]) -> None:
        """States that can be reached from each other: split until all of a class look alike."""
        classes = dict.fromkeys(group, -2)
        count = 1
        while True:
            shapes = {state: self._shape(state, classes) for state in group}
            numbers = {
                shape: -2 - index for index, shape in enumerate(dict.fromkeys(shapes.values()))
            }
            classes = {state: numbers[shapes[state]] for state in group}
            if len(numbers) == count:
                break
            count = len(numbers)
        base = len(self._shapes)
        final = {old: base + index for index, old in enumerate(dict.fromkeys(classes.values()))}
        written: set[int] = set()
        for state in group:
            self._merged[state] = final[classes[state]]
            if classes[state] not in written:
                written.add(classes[state])
                self._shapes.append((0, 0, ()))
        for state in group:
            self._shapes[self._merged[state]] = self._shape(state, {})


def _components(dfa: Dfa) -> list[list[int]]:
    """Strongly connected components, those that others lead to first."""
    search = _Search(dfa)
    for state in range(len(dfa.meaning)):
        if not search.order[state]:
            search.visit(state)
    return search.found


class _Search:
    """Tarjan's algorithm, without recursion."""

    def __init__(self, dfa: Dfa) -> None:
        self.order = [0] * len(dfa.meaning)
        self.found: list[list[int]] = []
        self._dfa = dfa
        self._low = self.order[:]
        self._stack: list[int] = []
        self._on_stack = bytearray(len(self.order))
        self._count = 0

    def _enter(self, state: int) -> tuple[int, Iterator[int]]:
        self._count += 1
        self.order[state] = self._low[state] = self._count
        self._stack.append(state)
        self._on_stack[state] = 1
        dfa = self._dfa
        return state, iter({*dfa.steps[state].values(), dfa.otherwise[state]})

    def visit(self, root: int) -> None:
        """All that can be reached from here and was not yet."""
        work = [self._enter(root)]
        while work:
            state, rest = work[-1]
            for to in rest:
                if not self.order[to]:
                    work.append(self._enter(to))
                    break
                if self._on_stack[to]:
                    self._low[state] = min(self._low[state], self.order[to])
            else:
                work.pop()
                if work:
                    before = work[-1][0]
                    self._low[before] = min(self._low[before], self._low[state])
                self._leave(state)

    def _leave(self, state: int) -> None:
        if self._low[state] != self.order[state]:
            return
        at = len(self._stack) - 1
        while self._stack[at] != state:
            at -= 1
        group = self._stack[at:]
        del self._stack[at:]
        for one in group:
            self._on_stack[one] = 0
        self.found.append(group)


def _shaped(meaning: int, steps: dict[int, int], rest: int) -> Shape:
    """The one way to write down some steps, given those that differ from the rest."""
    most = rest
    if len(steps) > 1:
        counts = Counter(steps.values())
        counts[rest] += _LETTERS - len(steps)
        most = min(counts, key=lambda to: (-counts[to], to))
        if most != rest:
            steps = steps | {byte: rest for byte in ALPHABET if byte not in steps}
    return meaning, most, tuple(sorted((byte, to) for byte, to in steps.items() if to != most))


def _refined(shapes: list[Shape], first: int) -> tuple[list[Shape], int]:
    """States in classes that no value tells apart."""
    classes = [meaning for meaning, _, _ in shapes]
    count = len(set(classes))
    while True:
        found: dict[tuple[int, Shape], int] = {}
        turned = [
            found.setdefault((classes[number], _through(classes, number, shape)), len(found))
            for number, shape in enumerate(shapes)
        ]
        if len(found) == count:
            break
        classes, count = turned, len(found)
    kept = {turned[number]: _through(turned, number, shape) for number, shape in enumerate(shapes)}
    return [kept[number] for number in range(count)], turned[first]


def _through(classes: list[int], number: int, shape: Shape) -> Shape:
    """A shape in terms of classes."""
    meaning, most, others = shape
    to_class = {
        to: classes[number if to == _SELF else to] for to in {most, *(to for _, to in others)}
    }
    return _shaped(meaning, {byte: to_class[to] for byte, to in others}, to_class[most])


def _rooted(shapes: list[Shape], first: int) -> Dfa:
    """Numbered from the first state on, and with an `otherwise` that is its own."""
    own = {number for number, (_, most, _) in enumerate(shapes) if most in {_SELF, number}}
    if not own:  # nothing is ever over: a state that no byte leads to serves
        shapes.append((_NEVER, _SELF, ()))
        own.add(len(shapes) - 1)
    order: dict[int, int] = {first: 0}
    waiting = [first]
    rows: list[tuple[int, dict[int, int], int]] = []
    for number in waiting:
        meaning, most, others = shapes[number]
        most = number if most == _SELF else most
        steps = {byte: number if to == _SELF else to for byte, to in others}
        if most not in own:
            steps.update({byte: most for byte in ALPHABET if byte not in steps})
            most = _best_own(steps, own)
            steps = {byte: to for byte, to in steps.items() if to != most}
        for to in (*steps.values(), most):
            if to not in order:
                order[to] = len(waiting)
                waiting.append(to)
        rows.append((meaning, steps, most))
    return Dfa(
        [row[0] for row in rows],
        [{byte: order[to] for byte, to in row[1].items()} for row in rows],
        [order[row[2]] for row in rows],
    )


def _best_own(steps: dict[int, int], own: set[int]) -> int:
    counts = Counter(to for to in steps.values() if to in own)
    return min(counts, key=lambda to: (-counts[to], to)) if counts else min(own)
