# SPDX-License-Identifier: Apache-2.0
"""Regular expressions mean what RE2 says."""

from __future__ import annotations

import random

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.tables.http_minimise import minimise
from runtime.tables.http_regex import Regex, compile_regex, literal_prefix
from runtime.tables.http_regex_syntax import ALPHABET, UnsupportedRegexError
from runtime.tables.http_union import Dfa, Union

LETTERS = "ab/1_- Kk."


def dfa_of(regex: Regex) -> Dfa:
    union = Union()
    union.add_expression(7, regex)
    return minimise(union.determinise(lambda found: int(7 in found), limit=20_000))


def matches(dfa: Dfa, text: str) -> bool:
    state = 0
    for byte in text.encode():
        state = dfa.steps[state].get(byte, dfa.otherwise[state])
    return dfa.meaning[state] == 1


def known(pattern: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error:
        return False
    return True


def compared(pattern: str, texts: list[str]) -> bool:
    """Whether a pattern could be compared; if so it says of all the texts what RE2 says."""
    if not known(pattern):
        return False  # Envoy takes no such route
    try:
        dfa = dfa_of(compile_regex(pattern))
    except UnsupportedRegexError:
        return False
    for text in texts:
        assert matches(dfa, text) == (re2.fullmatch(pattern, text) is not None), (pattern, text)
    return True


atoms = st.sampled_from(
    [
        "a", "b", "/", "1", ".", "-", "K", "k", "_", " ", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\.",
        "[ab]", "[^ab]", "[a-z]", "[^/]", "[[:alpha:]]", "[^[:digit:]_]", r"[\d-]", "[a-]", "[]a]", "[^]a]",
        r"[\w/]", r"\x61", r"\x{62}", r"\141", r"\Qa.b\E", "^", "$", r"\A", r"\z", "(?i)a", "(?i:K)", "(?-i:k)",
        "é", "[é-ü]", "(?i:[x-\u017f])", "\u212a", "(?i:\u212a)", "(?s:.)", "(?m:^)", "(?m:$)", "(?U)", "()", "[[:^alpha:]]",
        "(?i:[^k])", r"[^\x{17f}]", r"(?i:[^\x{17f}])", r"\t", r"\07", "{", "}", "a{,2}", "x{1", r"\-", r"[\]]", "[+--]",
        r"\b", r"\pN", r"\C", "(?P<n>a)", "(?<n>b)",
    ]
)  # fmt: skip
repeats = st.sampled_from(
    ["", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{1,}", "{2,3}?", "{0}"]
)


def _join(parts: list[tuple[str, str]]) -> str:
    return "".join(atom + repeat for atom, repeat in parts)


sequences = st.lists(st.tuples(atoms, repeats), max_size=4).map(_join)
patterns = st.recursive(
    sequences,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("|".join),
        st.tuples(st.sampled_from(["(", "(?:", "(?i:", "(?s-i:"]), inner, repeats, inner).map(
            lambda parts: f"{parts[0]}{parts[1]}){parts[2]}{parts[3]}"
        ),
    ),
    max_leaves=5,
)
texts = st.text(LETTERS, max_size=7)


@settings(max_examples=1500, deadline=None)
@given(pattern=patterns, given_texts=st.lists(texts, max_size=30))
def test_generated_expressions(pattern: str, given_texts: list[str]) -> None:
    compared(pattern, ["", "a", "b", "ab", "aa", *given_texts])


@settings(max_examples=500, deadline=None)
@given(
    pattern=st.text("ab*+?()[]{}|\\.^$-,123:iPQEdw<>", max_size=12),
    given_texts=st.lists(texts, max_size=20),
)
def test_any_text_as_an_expression(pattern: str, given_texts: list[str]) -> None:
    compared(pattern, ["", "a", "b", "ab", "aab", *given_texts])


def test_each_character_class() -> None:
    single = [chr(byte) for byte in ALPHABET]
    names = [
        "alnum",
        "alpha",
        "ascii",
        "blank",
        "cntrl",
        "digit",
        "graph",
        "lower",
        "print",
        "punct",
        "space",
        "upper",
        "word",
        "xdigit",
    ]
    for name in names:
        assert compared(f"[[:{name}:]]", single)
        assert compared(f"(?i)[[:^{name}:]]", single)
    for letter in "dDwWsS":
        assert compared(f"\\{letter}", single)
        assert compared(f"(?i)[^\\{letter}]", single)
    for byte in ALPHABET:
        assert compared(f"(?i)\\x{{{byte:x}}}", single)
        assert compared(f"[^\\x{byte:02x}]", single)


def test_most_generated_expressions_can_be_compared() -> None:
    """A compiler that refuses all would pass the tests above."""
    chance = random.Random(3)
    pieces = ["a", "b*", "[ab]+", "(a|b)?", ".", "/", r"\w+", "a{2,3}", "(?i:K)", "[^/]+", "(b|)*"]
    done = [
        compared(
            "".join(chance.choices(pieces, k=4)),
            ["".join(chance.choices(LETTERS, k=4)) for _ in range(20)],
        )
        for _ in range(300)
    ]
    assert all(done)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"a\b", "word boundaries"), (r"\pL", r"\\pL?"), (r"\C", r"\\C"), ("(a{1000}){1000}", "positions"),
        ("(", "missing"), (")", "unmatched"), ("a**", "repetition"), ("*", "repetition of nothing"), ("[z-a]", "backwards"),
        ("[a", "too soon"), ("a{1001}", "out of range"), (r"\8", "8"), ("(?z)", "kind"), ("\\", "too soon"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_said(pattern: str, reason: str) -> None:
    with pytest.raises(UnsupportedRegexError, match=reason):
        compile_regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [("/a/b.*", "/a/b"), ("/ab?", "/a"), ("/ab*", "/a"), ("/ab{2}", "/a"), ("/ab+", "/ab"), ("/a|/b", ""),
     ("(?i)/a", ""), (r"/a\.b", "/a"), ("/abc", "/abc"), (".*", ""), ("/a$", "/a"), ("^/a", "")],
)  # fmt: skip
def test_the_literal_beginning(pattern: str, prefix: str) -> None:
    assert literal_prefix(pattern) == prefix
