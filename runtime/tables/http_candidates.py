# SPDX-License-Identifier: Apache-2.0
"""Routes that a request may still take, what is still asked of it, and what to look at next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from runtime.tables.http_conditions import Condition, Text
from runtime.tables.http_numbers import Place

Asked = tuple[int, ...]  # conditions, by their numbers
Candidate = tuple[int, Asked]  # a route, and what is still asked of the request


def next_place(candidates: Sequence[Candidate], conditions: Sequence[Condition]) -> int:
    """The place to look at next.

    Paths tell the most apart, so they come first, except for what would otherwise be looked at again
    behind each of them: a header that leads to another version, whatever the path. Then comes what
    the first route asks for: one look there, and it is taken or out of the way.
    """
    places = [[conditions[one].place for one in asked] for _, asked in candidates]
    if any(Place.PATH in each for each in places):
        return _before_paths(places) or Place.PATH
    counts = Counter(chain.from_iterable(map(dict.fromkeys, places)))
    first = [conditions[one] for one in candidates[0][1]]
    return min(first, key=lambda one: (-counts[one.place], one.rank)).place


def _before_paths(candidates: Sequence[Sequence[int]]) -> int | None:
    """A place that decides by itself wherever it is asked for, and that few paths come before.

    Those few are looked for again behind each of that place's values.
    """
    again: Counter[int] = Counter()
    beside: set[int] = set()
    paths = 0
    for places in candidates:
        here = set(places)
        paths += Place.PATH in here
        if len(here) > 1:
            beside |= here
        elif Place.PATH not in here:
            again.update(dict.fromkeys(here, paths))
    good = (one for one in again if one not in beside and 4 * again[one] <= paths)
    return min(good, default=None)


class Chooser:
    """Which candidates are left when it is known which tests of one place's value pass.

    Args:
        asked: of each candidate what it asks of that value.
        conditions: by their numbers.

    Attributes:
        texts: the tests, by number.
    """

    def __init__(self, asked: Sequence[Asked], conditions: Sequence[Condition]) -> None:
        self.texts: dict[Text, int] = {}
        self._asked = [[conditions[one] for one in numbers] for numbers in asked]
        self._unasked: list[int] = []
        self._inverted: list[int] = []
        self._by_text: dict[int, list[int]] = {}
        for index, here in enumerate(self._asked):
            self._sort_in(index, here)

    def _sort_in(self, index: int, here: Sequence[Condition]) -> None:
        for one in here:
            self.texts.setdefault(one.text, len(self.texts))
        wanted = [self.texts[one.text] for one in here if not one.invert]
        if wanted:
            self._by_text.setdefault(wanted[0], []).append(index)
        elif here:
            self._inverted.append(index)
        else:
            self._unasked.append(index)

    def holding(self, found: frozenset[int]) -> Sequence[int]:
        """The indices of candidates, in their order."""
        asked = [index for text in found for index in self._by_text.get(text, ())]
        left = [index for index in asked + self._inverted if self._holds(index, found)]
        return sorted(self._unasked + left) if left else self._unasked

    def _holds(self, index: int, found: frozenset[int]) -> bool:
        return all((self.texts[one.text] in found) != one.invert for one in self._asked[index])

    def absent(self) -> Sequence[int]:
        """The same, where there is no value."""
        return [index for index, here in enumerate(self._asked) if all(one.absent for one in here)]
