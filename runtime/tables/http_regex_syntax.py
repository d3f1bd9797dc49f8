# SPDX-License-Identifier: Apache-2.0
"""The syntax of RE2's regular expressions, without what no automaton of ours can do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

ALPHABET = bytes([9, *range(0x20, 0x7F)])  # what a value may have
_MOST_REPEATS = 1000  # RE2 allows no more


class UnsupportedRegexError(ValueError):
    """A regular expression that is not understood here, and why."""


def mask_of(codes: bytes | range) -> int:
    """A bit for each ASCII character."""
    return sum(1 << code for code in set(codes) if code < 128)


ALL = mask_of(range(128))
_NEWLINE = mask_of(b"\n")
_DIGIT = mask_of(b"0123456789")
_UPPER, _LOWER = mask_of(range(65, 91)), mask_of(range(97, 123))
_WORD = _DIGIT | _UPPER | _LOWER | mask_of(b"_")
_PERL = {"d": _DIGIT, "w": _WORD, "s": mask_of(b"\t\n\f\r ")}
_POSIX = {
    "alnum": _DIGIT | _UPPER | _LOWER, "alpha": _UPPER | _LOWER, "ascii": ALL,
    "blank": mask_of(b" \t"), "cntrl": mask_of(range(32)) | 1 << 127, "digit": _DIGIT,
    "graph": mask_of(range(33, 127)), "lower": _LOWER, "print": mask_of(range(32, 127)),
    "punct": mask_of(b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"), "space": mask_of(b"\t\n\v\f\r "),
    "upper": _UPPER, "word": _WORD, "xdigit": _DIGIT | mask_of(b"abcdefABCDEF"),
}  # fmt: skip
_ESCAPES = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
# Characters beyond ASCII that are a letter of ASCII when case does not matter.
_FOLDED = {0x17F: "s", 0x212A: "k"}


@dataclass(frozen=True, slots=True)
class OneOf:
    """One character of a set, as bits."""

    mask: int


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    choices: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    what: Node
    least: int
    most: int | None


class Assertion(Enum):
    """A place in the text; as values have no newlines, those of lines are those of the text."""

    BEGIN = "begin"
    END = "end"


Node = OneOf | Sequence | Alternatives | Repeat | Assertion


@dataclass(frozen=True, slots=True)
class _Flags:
    fold: bool = False
    dot_newline: bool = False


def fold(mask: int) -> int:
    """With every letter its other case."""
    return mask | (mask & _UPPER) << 32 | (mask & _LOWER) >> 32


def _range(low: int, high: int, flags: _Flags) -> int:
    mask = mask_of(range(low, min(high, 127) + 1))
    if not flags.fold:
        return mask
    for code, letter in _FOLDED.items():
        if low <= code <= high:
            mask |= mask_of(letter.encode())
    return fold(mask)


def parse(pattern: str) -> Node:
    """The expression as a tree.

    Raises:
        UnsupportedRegexError: it has what is not supported, or an error.
    """
    parser = _Parser(pattern)
    node = parser.alternatives(_Flags())
    if parser.at < len(pattern):
        raise UnsupportedRegexError("unmatched )")
    return node


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _take(self, text: str) -> bool:
        if self.pattern.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def _match(self, expression: str) -> re.Match[str] | None:
        found = re.compile(expression).match(self.pattern, self.at)
        if found:
            self.at = found.end()
        return found

    def _next(self) -> str:
        if self.at >= len(self.pattern):
            raise UnsupportedRegexError("it ends too soon")
        self.at += 1
        return self.pattern[self.at - 1]

    def alternatives(self, flags: _Flags) -> Node:
        """Up to the end or an unmatched parenthesis. Flags set inside a group last to its end."""
        choices: list[Node] = []
        while True:
            node, flags = self._sequence(flags)
            choices.append(node)
            if not self._take("|"):
                return choices[0] if len(choices) == 1 else Alternatives(tuple(choices))

    def _sequence(self, flags: _Flags) -> tuple[Node, _Flags]:
        parts: list[Node] = []
        while self._peek() not in {"", "|", ")"}:
            if self._take("\\Q"):
                parts.extend(self._quoted(flags))
                continue
            node, flags = self._atom(flags)
            if node is not None:
                parts.append(self._repeated(node))
            elif self._repetition() is not None:
                raise UnsupportedRegexError("a repetition of flags")
        return Sequence(tuple(parts)), flags

    def _quoted(self, flags: _Flags) -> Iterator[Node]:
        end = self.pattern.find("\\E", self.at)
        text = self.pattern[self.at :] if end < 0 else self.pattern[self.at : end]
        self.at = len(self.pattern) if end < 0 else end + 2
        if self._peek() and self._peek() in "*+?{":
            raise UnsupportedRegexError("a repetition after \\E")
        for letter in text:
            yield OneOf(_range(ord(letter), ord(letter), flags))

    def _repeated(self, node: Node) -> Node:
        found = self._repetition()
        if found is None:
            return node
        self._take("?")  # lazy: which match is found first does not matter where it is the whole
        if (self._peek() and self._peek() in "*+?") or self._is_counted():
            raise UnsupportedRegexError("a repetition of a repetition")
        return Repeat(node, *found)

    def _is_counted(self) -> bool:
        return re.compile(r"\{\d+(,\d*)?\}").match(self.pattern, self.at) is not None

    def _repetition(self) -> tuple[int, int | None] | None:
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return counts
        found = self._match(r"\{(\d+)(,)?(\d*)\}")
        if found is None or (found[3] and not found[2]):
            return None
        least = int(found[1])
        most = least if not found[2] else int(found[3]) if found[3] else None
        if max(least, most or 0) > _MOST_REPEATS or (most is not None and most < least):
            raise UnsupportedRegexError("a repetition count out of range")
        return least, most

    def _atom(self, flags: _Flags) -> tuple[Node | None, _Flags]:
        letter = self._next()
        if letter == "(":
            return self._group(flags)
        return self._single(letter, flags), flags

    def _single(self, letter: str, flags: _Flags) -> Node:
        match letter:
            case "[":
                return OneOf(self._class(flags))
            case ".":
                return OneOf(ALL if flags.dot_newline else ALL & ~_NEWLINE)
            case "^" | "$":
                return Assertion.BEGIN if letter == "^" else Assertion.END
            case "\\":
                return self._escaped(flags)
            case "*" | "+" | "?":
                raise UnsupportedRegexError("a repetition of nothing")
        return OneOf(_range(ord(letter), ord(letter), flags))

    def _group(self, flags: _Flags) -> tuple[Node | None, _Flags]:
        inside = flags
        if self._take("?") and not self._match(r"P?<\w+>"):
            found = self._match(r"([imsU]*)(?:-([imsU]+))?([:)])")
            if found is None or (not found[1] and not found[2] and found[3] == ")"):
                raise UnsupportedRegexError("a group of a kind that is not known")
            inside = _with_flags(flags, found[1], on=True)
            inside = _with_flags(inside, found[2] or "", on=False)
            if found[3] == ")":
                return None, inside
        node = self.alternatives(inside)
        if not self._take(")"):
            raise UnsupportedRegexError("missing )")
        return node, flags

    def _escaped(self, flags: _Flags) -> Node:
        letter = self._peek()
        if letter == "A":
            self.at += 1
            return Assertion.BEGIN
        if letter == "z":
            self.at += 1
            return Assertion.END
        if letter and letter in "bB":
            raise UnsupportedRegexError("word boundaries (\\b, \\B)")
        found = self._escaped_set(flags)
        if found is not None:
            return OneOf(found)
        code = self._escaped_code()
        return OneOf(_range(code, code, flags))

    def _escaped_set(self, flags: _Flags) -> int | None:
        letter = self._peek()
        if letter and letter in "dDwWsS":
            self.at += 1
            mask = _PERL[letter.lower()]
            if flags.fold:
                mask = fold(mask)
            return ALL & ~mask if letter.isupper() else mask
        if letter and letter in "pPCX":
            raise UnsupportedRegexError(f"\\{letter}")
        return None

    def _escaped_code(self) -> int:
        found = self._match(r"x\{([0-9A-Fa-f]{1,6})\}") or self._match(r"x([0-9A-Fa-f]{2})")
        if found:
            return int(found[1], 16)
        found = self._match(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
        if found:
            return int(found[0], 8)
        letter = self._next()
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if letter.isascii() and not letter.isalnum() and letter != "_":
            return ord(letter)
        raise UnsupportedRegexError(f"\\{letter}")

    def _class(self, flags: _Flags) -> int:
        negated = self._take("^")
        mask, first = 0, True
        while first or not self._take("]"):
            first = False
            mask |= self._class_member(flags)
        return ALL & ~mask if negated else mask

    def _class_member(self, flags: _Flags) -> int:
        if self._take("[:"):
            return self._posix(flags)
        if self._peek() == "\\":
            self.at += 1
            found = self._escaped_set(flags)
            if found is not None:
                return found
            low = self._escaped_code()
        else:
            low = ord(self._next())
        if self._peek() != "-" or self.pattern[self.at + 1 : self.at + 2] in {"]", ""}:
            return _range(low, low, flags)
        self.at += 1
        high = ord(self._next())
        if high == ord("\\"):
            high = self._escaped_code()
        if high < low:
            raise UnsupportedRegexError("a range of characters that runs backwards")
        return _range(low, high, flags)

    def _posix(self, flags: _Flags) -> int:
        found = self._match(r"(\^?)(\w+):\]")
        if found is None or found[2] not in _POSIX:
            raise UnsupportedRegexError("a class of characters that is not known")
        mask = fold(_POSIX[found[2]]) if flags.fold else _POSIX[found[2]]
        return ALL & ~mask if found[1] else mask


def _with_flags(flags: _Flags, letters: str, *, on: bool) -> _Flags:
    for letter in letters:
        if letter == "i":
            flags = replace(flags, fold=on)
        if letter == "s":
            flags = replace(flags, dot_newline=on)
    return flags
