# SPDX-License-Identifier: Apache-2.0
"""Rows never meet, automata tell what they should, and are as small as they can be."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.model.http import PathKind, TextKind
from runtime.tables.http_minimise import minimise
from runtime.tables.http_regex import compile_regex
from runtime.tables.http_regex_syntax import ALPHABET
from runtime.tables.http_rows import Rows, RowsFullError
from runtime.tables.http_union import Dfa, TooManyStatesError, Union

LETTERS = "abA/1"
Pattern = tuple[PathKind | TextKind, str, bool]


@given(st.lists(st.frozensets(st.integers(0, 9), max_size=6), max_size=40))
def test_rows_do_not_meet(rows: list[frozenset[int]]) -> None:
    places = Rows(first=3, width=10, limit=10_000)
    owner: dict[int, int] = {}
    numbers = set()
    for row in rows:
        number = places.place(row)
        assert number >= 3
        assert number not in numbers
        numbers.add(number)
        for symbol in row:
            assert owner.setdefault(number + symbol, number) == number
            assert number + symbol < places.size


def test_rows_stay_below_the_limit() -> None:
    places = Rows(first=0, width=10, limit=100)
    while places.size < 85:
        places.place({0, 1})
    with pytest.raises(RowsFullError, match="100"):
        _ = [places.place({0, 1}) for _ in range(20)]
    assert places.size <= 100


def holds(pattern: Pattern, text: str) -> bool:
    kind, value, fold = pattern
    if fold:
        value, text = value.lower(), text.lower()
    tests: dict[PathKind | TextKind, Callable[[], bool]] = {
        PathKind.EXACT: lambda: text == value,
        PathKind.PREFIX: lambda: text.startswith(value),
        PathKind.SEPARATED_PREFIX: lambda: text == value or text.startswith(value + "/"),
        TextKind.SUFFIX: lambda: text.endswith(value),
        TextKind.CONTAINS: lambda: value in text,
        TextKind.PRESENT: lambda: True,
    }
    return tests[kind]()


def after(dfa: Dfa, text: str) -> int:
    state = 0
    for byte in text.encode():
        state = dfa.steps[state].get(byte, dfa.otherwise[state])
    return state


KINDS: list[PathKind | TextKind] = [
    *list(PathKind)[:3],
    TextKind.SUFFIX,
    TextKind.CONTAINS,
    TextKind.PRESENT,
]
patterns = st.tuples(st.sampled_from(KINDS), st.text(LETTERS, max_size=4), st.booleans())


@settings(max_examples=300, deadline=None)
@given(
    asked=st.lists(patterns, max_size=8),
    expressions=st.lists(st.sampled_from(["a.*", "(ab|b)+", "[^/]*", ".*a", "a{2}"]), max_size=2),
    seed=st.integers(0, 2**32),
)
def test_a_union_tells_which_match(asked: list[Pattern], expressions: list[str], seed: int) -> None:
    union, singles = Union(), []
    for number, (kind, value, fold) in enumerate(asked):
        union.add_text(number, kind, value, ignore_case=fold)
    for number, pattern in enumerate(expressions, len(asked)):
        union.add_expression(number, compile_regex(pattern))
        single = Union()
        single.add_expression(0, compile_regex(pattern))
        singles.append(single.determinise(len, limit=1000))
    meanings: dict[frozenset[int], int] = {}
    made = union.determinise(lambda found: meanings.setdefault(found, len(meanings)), limit=50_000)
    small = minimise(made)
    assert all(small.otherwise[rest] == rest for rest in small.otherwise)
    chance = random.Random(seed)
    for _ in range(60):
        text = "".join(chance.choices(LETTERS, k=chance.randrange(7)))
        wanted = {number for number, one in enumerate(asked) if holds(one, text)}
        wanted |= {
            number
            for number, one in enumerate(singles, len(asked))
            if one.meaning[after(one, text)]
        }
        for dfa in (made, small):
            assert dfa.meaning[after(dfa, text)] == meanings[frozenset(wanted)]


def distinguishable(dfa: Dfa) -> int:
    """How many states no text leads to the same meaning from (Moore, over the whole alphabet)."""
    classes = list(dfa.meaning)
    while True:
        shapes = [
            (classes[state], tuple(classes[dfa.steps[state].get(byte, dfa.otherwise[state])] for byte in ALPHABET))
            for state in range(len(classes))
        ]  # fmt: skip
        numbers = {shape: index for index, shape in enumerate(dict.fromkeys(shapes))}
        if len(numbers) == len(set(classes)):
            return len(numbers)
        classes = [numbers[shape] for shape in shapes]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(patterns, max_size=6),
    st.lists(st.sampled_from(["a.*", "(ab|b)+", "a{2}b?"]), max_size=2),
)
def test_what_is_alike_is_one(asked: list[Pattern], expressions: list[str]) -> None:
    union = Union()
    for number, (kind, value, fold) in enumerate(asked):
        union.add_text(number, kind, value, ignore_case=fold)
    for number, pattern in enumerate(expressions, len(asked)):
        union.add_expression(number, compile_regex(pattern))
    dfa = minimise(union.determinise(lambda found: min(found, default=99), limit=50_000))
    reachable = {0, *dfa.otherwise} | {to for row in dfa.steps for to in row.values()}
    assert reachable == set(range(len(dfa.meaning)))
    # One more where bytes that are in no value need somewhere to go.
    assert len(dfa.meaning) <= distinguishable(dfa) + 1


def test_too_many_states_are_not_made() -> None:
    union = Union()
    union.add_expression(0, compile_regex(".*a.{20}"))
    with pytest.raises(TooManyStatesError, match="1000"):
        union.determinise(len, limit=1000)
