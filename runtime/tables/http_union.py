# SPDX-License-Identifier: Apache-2.0
"""Many texts and expressions as one automaton that tells at the end of a value which of them match.

Texts are tries, expressions are positions (see http_regex); both are items. The automaton is made
by the subset construction: a state is the set of items that the bytes so far have led to. For texts
alone that is one item, so that ten thousand of them cost no more than their letters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from runtime.model.http import PathKind, TextKind
from runtime.tables.http_regex import Regex
from runtime.tables.http_regex_syntax import ALPHABET, mask_of

Kind = PathKind | TextKind
_ALL = mask_of(ALPHABET)
_KNOWN = frozenset(ALPHABET)


class TooManyStatesError(ValueError):
    """The automaton has more states than it may have."""


@dataclass(slots=True)
class _Item:
    """`keeps`: once reached it stays, whatever follows; `keeper`: such an item, that begins here."""

    keeps: bool = False
    keeper: int | None = None
    ends: set[int] = field(default_factory=set)  # what matches if the value ends here
    steps: dict[int, list[int]] = field(default_factory=dict)
    sets: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)  # bytes as bits, items


@dataclass(slots=True)
class Dfa:
    """States by number, 0 the first: what each means at the end, and where bytes lead.

    `otherwise` is for bytes that `steps` does not name.
    """

    meaning: list[int]
    steps: list[dict[int, int]]
    otherwise: list[int]


class Union:
    """Patterns under numbers that the caller gives."""

    def __init__(self) -> None:
        self._items: list[_Item] = []
        self._roots: dict[tuple[bool, bool], int] = {}
        self._always: set[int] = set()
        self._start: set[int] = set()
        self.has_expressions = False

    @property
    def size(self) -> int:
        """How many items there are: about the number of letters."""
        return len(self._items)

    def _item(self, *, keeps: bool = False) -> int:
        self._items.append(_Item(keeps=keeps))
        return len(self._items) - 1

    def add_text(self, number: int, kind: Kind, value: str, *, ignore_case: bool = False) -> None:
        """Add an exact text, a beginning, an end or a part."""
        data = value.encode()
        if not _KNOWN.issuperset(data):
            return  # no value has such bytes
        floats = kind in {TextKind.SUFFIX, TextKind.CONTAINS}
        if not data and kind in {
            PathKind.PREFIX,
            TextKind.PREFIX,
            TextKind.SUFFIX,
            TextKind.CONTAINS,
        }:
            kind = TextKind.PRESENT
        if kind is TextKind.PRESENT:
            self._always.add(number)
            return
        node = self._spell(data, floats=floats, fold=ignore_case)
        if kind in {PathKind.PREFIX, TextKind.PREFIX, TextKind.CONTAINS}:
            self._keep_from(node, number)
            return
        self._items[node].ends.add(number)
        if kind is PathKind.SEPARATED_PREFIX:
            inside = self._spell(data + b"/", floats=False, fold=ignore_case)
            self._keep_from(inside, number)

    def _spell(self, data: bytes, *, floats: bool, fold: bool) -> int:
        at = self._roots.get((floats, fold))
        if at is None:
            at = self._roots[floats, fold] = self._item(keeps=floats)
            self._start.add(at)
        for byte in data.lower() if fold else data:
            found = self._items[at].steps.get(byte)
            if found is None:
                found = [self._item()]
                self._items[at].steps[byte] = found
                if fold and 97 <= byte <= 122:
                    self._items[at].steps[byte - 32] = found
            at = found[0]
        return at

    def _keep_from(self, node: int, number: int) -> None:
        """All values that go through a node match."""
        item = self._items[node]
        if item.keeper is None:
            item.keeper = self._item(keeps=True)
        self._items[item.keeper].ends.add(number)

    def add_expression(self, number: int, regex: Regex) -> None:
        """Add a regular expression."""
        self.has_expressions = True
        base = len(self._items)
        done = base + len(regex.masks)  # no step leads on from here
        for index, follow in enumerate(regex.follow):
            to = tuple(base + one for one in follow) + ((done,) if regex.last[index] else ())
            self._items.append(_Item(sets=[(regex.masks[index] & _ALL, to)]))
        self._items.append(_Item(ends={number}))
        self._start |= {base + one for one in regex.first} | ({done} if regex.empty else set())

    def determinise(self, meaning: Callable[[frozenset[int]], int], *, limit: int) -> Dfa:
        """The automaton.

        Args:
            meaning: what a set of patterns that match comes to.
            limit: of states.

        Raises:
            TooManyStatesError: it would have more.
        """
        return _Subsets(self._items, self._always, meaning, limit).run(self._start)


State = tuple[frozenset[int], frozenset[int]]  # items, and those that stay


class _Subsets:
    def __init__(
        self,
        items: list[_Item],
        always: set[int],
        meaning: Callable[[frozenset[int]], int],
        limit: int,
    ) -> None:
        self._items, self._meaning, self._limit = items, meaning, limit
        self._always = frozenset(always)
        self._meanings: dict[frozenset[int], int] = {}
        self._numbers: dict[State, int] = {}
        self._waiting: list[State] = []

    def run(self, start: set[int]) -> Dfa:
        dfa = Dfa([], [], [])
        self._number(start, frozenset())
        for state in self._waiting:  # grows meanwhile
            items, kept = state
            dfa.meaning.append(self._what(items, kept))
            steps, otherwise = self._steps(items, kept)
            dfa.steps.append(steps)
            dfa.otherwise.append(otherwise)
        return dfa

    def _number(self, items: Iterable[int], kept: frozenset[int]) -> int:
        plain: set[int] = set()
        staying = set(kept)
        for item in items:
            one = self._items[item]
            (staying if one.keeps else plain).add(item)
            if one.keeper is not None:
                staying.add(one.keeper)
        state = frozenset(plain), frozenset(staying)
        number = self._numbers.get(state)
        if number is None:
            number = self._numbers[state] = len(self._waiting)
            if number >= self._limit:
                raise TooManyStatesError(f"more than {self._limit} states")
            self._waiting.append(state)
        return number

    def _what(self, items: frozenset[int], kept: frozenset[int]) -> int:
        found = self._always.union(
            *(self._items[item].ends for item in items), *(self._items[item].ends for item in kept)
        )
        if found not in self._meanings:
            self._meanings[found] = self._meaning(found)
        return self._meanings[found]

    def _steps(self, items: frozenset[int], kept: frozenset[int]) -> tuple[dict[int, int], int]:
        steps: dict[int, list[int]] = {}
        sets: list[tuple[int, tuple[int, ...]]] = []
        for group in (items, kept):
            for item in group:
                one = self._items[item]
                for byte, to in one.steps.items():
                    steps[byte] = steps[byte] + to if byte in steps else to
                sets += one.sets
        otherwise = self._number((), kept)
        found: dict[int, int] = {}
        if not sets:
            for byte, to in steps.items():
                found[byte] = self._number(to, kept)
            return found, otherwise
        for mask, to_all in _blocks(sets):
            number = self._number(to_all, kept)
            for byte in _bytes_of(mask):
                more = steps.get(byte)
                found[byte] = self._number((*to_all, *more), kept) if more else number
        return found, otherwise


def _blocks(sets: list[tuple[int, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    """The bytes, cut where any of the sets tells them apart, with the items of all sets they are in."""
    blocks: list[tuple[int, tuple[int, ...]]] = [(_ALL, ())]
    for mask, items in sets:
        cut: list[tuple[int, tuple[int, ...]]] = []
        for block, before in blocks:
            if block & mask:
                cut.append((block & mask, before + items))
            if block & ~mask:
                cut.append((block & ~mask, before))
        blocks = cut
    return blocks


def _bytes_of(mask: int) -> Iterable[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
