# SPDX-License-Identifier: Apache-2.0
"""Automata over one value, each made once for all routes that ask the same of it.

Ten thousand paths that each ask for a method are ten thousand nodes, of a few shapes: they differ in
the routes alone. When a table changes it is compiled anew, and most shapes are those of before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from runtime.model.http import PathKind, TextKind
from runtime.tables.http_candidates import Asked, Chooser
from runtime.tables.http_conditions import Condition, Conditions, Text
from runtime.tables.http_kept import Kept
from runtime.tables.http_minimise import minimise
from runtime.tables.http_union import Dfa, TooManyStatesError, Union

MOST_STATES = 2_000_000  # of a table
# Beyond the letters of its texts: what expressions may add to an automaton.
_MOST_BY_EXPRESSIONS = 30_000
MOST_ALIKE = 32  # candidates: of longer lists no two are alike


class GraphTooLargeError(ValueError):
    """The table does not fit; `texts` are the tests that it would help to do without."""

    def __init__(self, texts: Sequence[Text], reason: str) -> None:
        super().__init__(reason)
        self.texts = texts


Split = Sequence[tuple[Asked, Asked]]  # what is asked of a value, and of others, by candidate


@dataclass(slots=True, eq=False)
class Shape:
    """The smallest automaton for candidates, of which each meaning is one of the outcomes.

    Attributes:
        outcomes: indices of the candidates that are left.
        absent: the outcome where there is no value.
        cost: what it takes to have it: states, of which more were made the first time.
    """

    dfa: Dfa
    outcomes: tuple[tuple[int, ...], ...]
    absent: int
    cost: int


# By what is asked, in full, of tables before this one: as good as made anew. In states, of about 500 bytes.
_kept: Kept[tuple[Dfa, tuple[tuple[int, ...], ...], int, int]] = Kept(room=100_000)


class Shapes:
    """Shapes by what is asked.

    Args:
        compiled: expressions.

    Attributes:
        conditions: all that are asked for; elsewhere they go by their numbers.
    """

    def __init__(self, compiled: Conditions) -> None:
        self.conditions: list[Condition] = []
        self._compiled = compiled
        self._numbers: dict[Condition, int] = {}
        self._made: dict[tuple[tuple[Asked, bool], ...], Shape] = {}

    def numbers(self, conditions: Iterable[Condition]) -> Asked:
        """The numbers of conditions."""
        return tuple(map(self._number, conditions))

    def _number(self, condition: Condition) -> int:
        found = self._numbers.setdefault(condition, len(self.conditions))
        if found == len(self.conditions):
            self.conditions.append(condition)
        return found

    def split(self, asked: Asked, place: int) -> tuple[Asked, Asked]:
        """What is asked of a place, and of all others."""
        here = tuple(one for one in asked if self.conditions[one].place == place)
        return here, tuple(one for one in asked if one not in here) if here else asked

    def of(self, split: Split, *, limit: int) -> Shape:
        """The shape for a few candidates.

        Raises:
            GraphTooLargeError: it would have more states than the limit.
        """
        # What else is asked of a route matters only in that it is, or is not.
        key = tuple((here, not left) for here, left in split)
        found = self._made.get(key)
        if found is not None:
            found.cost = len(found.dfa.meaning)
            return found
        content = tuple(
            [(tuple([self.conditions[one] for one in here]), last) for here, last in key]
        )
        known = _kept.get(content)
        # Where there is less room than it took, it is to fail as it would have.
        if known is None or known[-1] > limit:
            known = self._make(split, limit=limit)
            _kept.keep(content, known, weight=len(known[0].meaning) + len(content))
        made = self._made[key] = Shape(*known)
        return made

    def _make(
        self, split: Split, *, limit: int
    ) -> tuple[Dfa, tuple[tuple[int, ...], ...], int, int]:
        outcomes: dict[tuple[int, ...], int] = {}

        def outcome(indices: Sequence[int]) -> int:
            return outcomes.setdefault(tuple(indices), len(outcomes))

        dfa, absent = self.make(split, outcome, limit=limit)
        return minimise(dfa), tuple(outcomes), absent, len(dfa.meaning)

    def make(
        self, split: Split, meaning: Callable[[Sequence[int]], int], *, limit: int
    ) -> tuple[Dfa, int]:
        """An automaton, and the meaning of no value.

        Args:
            split: the candidates.
            meaning: of those that are left, by their indices.
            limit: of states.

        Raises:
            GraphTooLargeError: it would have more.
        """
        chooser = Chooser([here for here, _ in split], self.conditions)
        union = Union()
        for text, number in chooser.texts.items():
            if text.kind in {PathKind.REGEX, TextKind.REGEX}:
                union.add_expression(number, self._compiled.expression(text.value))
            else:
                union.add_text(number, text.kind, text.value, ignore_case=text.ignore_case)

        def left(indices: Sequence[int]) -> int:
            return meaning(_cut(indices, split))

        texts = list(chooser.texts)
        dfa = determinise(union, lambda found: left(chooser.holding(found)), texts, limit=limit)
        return dfa, left(chooser.absent())


def _cut(indices: Sequence[int], split: Split) -> Sequence[int]:
    """Those up to the first that nothing more is asked of: it is chosen before all others."""
    for count, index in enumerate(indices):
        if not split[index][1]:
            return indices[: count + 1]
    return indices


def determinise(
    union: Union, meaning: Callable[[frozenset[int]], int], texts: Sequence[Text], *, limit: int
) -> Dfa:
    """The automaton of a union.

    Raises:
        GraphTooLargeError: it would have more states, or too many for the sake of expressions.
    """
    if union.has_expressions:
        limit = min(limit, union.size + _MOST_BY_EXPRESSIONS)
    try:
        return union.determinise(meaning, limit=limit)
    except TooManyStatesError as error:
        raise GraphTooLargeError(texts, str(error)) from error
