# SPDX-License-Identifier: Apache-2.0
"""Regular expressions as RE2 understands them, as automata over the bytes that a value can have.

Those are the printable ones of ASCII and the tab: a value with others is not routed here. So what a
regular expression says of other characters only matters where it says that they are like these.
Source: https://github.com/google/re2/wiki/Syntax, and RE2's parse.cc where that is silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.tables.http_regex_syntax import (
    Alternatives,
    Assertion,
    Node,
    OneOf,
    Repeat,
    Sequence,
    UnsupportedRegexError,
    parse,
)

MOST_POSITIONS = 5000


@dataclass(frozen=True, slots=True)
class Regex:
    """An automaton without empty steps: a position is a place in the expression that takes a byte.

    Attributes:
        masks: by position, the bytes that it takes, as bits.
        follow: by position, those that may come next.
        last: by position, whether the value may end after it.
        first: positions that may take the first byte.
        empty: whether the empty value matches.
    """

    masks: tuple[int, ...]
    follow: tuple[frozenset[int], ...]
    last: tuple[bool, ...]
    first: frozenset[int]
    empty: bool


class _Builder:
    """Thompson's construction; its states are turned into positions at the end."""

    def __init__(self) -> None:
        self.empty: list[list[tuple[int, Assertion | None]]] = []
        self.takes: dict[int, tuple[int, int]] = {}  # state: mask, next state

    def state(self) -> int:
        if len(self.empty) > 4 * MOST_POSITIONS or len(self.takes) > MOST_POSITIONS:
            raise UnsupportedRegexError(f"it has more than {MOST_POSITIONS} positions")
        self.empty.append([])
        return len(self.empty) - 1

    def add(self, node: Node, start: int) -> int:
        """The state after an expression that begins in a state."""
        match node:
            case OneOf(mask):
                end = self.state()
                at = self.state()
                self.empty[start].append((at, None))
                self.takes[at] = (mask, end)
                return end
            case Assertion():
                end = self.state()
                self.empty[start].append((end, node))
                return end
            case Sequence(parts):
                for part in parts:
                    start = self.add(part, start)
                return start
            case Alternatives(choices):
                end = self.state()
                for choice in choices:
                    at = self.state()
                    self.empty[start].append((at, None))
                    self.empty[self.add(choice, at)].append((end, None))
                return end
            case Repeat():
                return self._repeat(node, start)

    def _repeat(self, node: Repeat, start: int) -> int:
        for _ in range(node.least):
            start = self.add(node.what, start)
        if node.most is None:
            loop, end = self.state(), self.state()
            self.empty[start].append((loop, None))
            self.empty[loop].append((end, None))
            self.empty[self.add(node.what, loop)].append((loop, None))
            return end
        end = self.state()
        for _ in range(node.most - node.least):
            self.empty[start].append((end, None))
            start = self.add(node.what, start)
        self.empty[start].append((end, None))
        return end

    def closure(self, start: int, holds: frozenset[Assertion]) -> set[int]:
        """States reached without a byte, where these assertions hold."""
        found, waiting = {start}, [start]
        while waiting:
            for to, needs in self.empty[waiting.pop()]:
                if to not in found and (needs is None or needs in holds):
                    found.add(to)
                    waiting.append(to)
        return found


_BEGIN, _END = frozenset({Assertion.BEGIN}), frozenset({Assertion.END})


def compile_regex(pattern: str) -> Regex:
    """The automaton of a regular expression that has to match a whole value.

    Raises:
        UnsupportedRegexError: it cannot be one, with the reason; or it is no regular expression.
    """
    builder = _Builder()
    start = builder.state()
    final = builder.add(parse(pattern), start)
    number = {state: index for index, state in enumerate(builder.takes)}
    known: dict[int, tuple[frozenset[int], bool]] = {}

    def after(state: int) -> tuple[frozenset[int], bool]:
        if state not in known:
            positions = frozenset(
                number[one] for one in builder.closure(state, frozenset()) if one in number
            )
            known[state] = positions, final in builder.closure(state, _END)
        return known[state]

    steps = [after(to) for _mask, to in builder.takes.values()]
    first = frozenset(number[one] for one in builder.closure(start, _BEGIN) if one in number)
    return Regex(
        masks=tuple(mask for mask, _to in builder.takes.values()),
        follow=tuple(positions for positions, _ends in steps),
        last=tuple(ends for _positions, ends in steps),
        first=first,
        empty=final in builder.closure(start, _BEGIN | _END),
    )


def full_match(pattern: str, text: str) -> bool:
    """Whether a regular expression matches the whole of a text, for one question now and then.

    Raises:
        UnsupportedRegexError: it cannot be told.
    """
    regex = compile_regex(pattern)
    data = text.encode()
    if not data:
        return regex.empty
    may: frozenset[int] = regex.first
    taken: set[int] = set()
    for byte in data:
        taken = {one for one in may if regex.masks[one] >> byte & 1}
        may = frozenset().union(*(regex.follow[one] for one in taken))
    return any(regex.last[one] for one in taken)


def literal_prefix(pattern: str) -> str:
    """Text that all matches of any regular expression begin with; "" when in doubt."""
    text = "".join(_plain(pattern))
    if "|" in pattern or "(?" in pattern:
        return ""
    following = pattern[len(text) : len(text) + 1]
    return text[:-1] if following and following in "*?{" else text


def _plain(pattern: str) -> Iterator[str]:
    for letter in pattern:
        if letter in "\\.+*?()|[]{}^$":
            return
        yield letter
