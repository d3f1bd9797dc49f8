# SPDX-License-Identifier: Apache-2.0
"""`python -m builder.responses`: write the automaton that reads a response's head in the kernel.

It accepts heads that nobody can read in two ways (RFC 9112) and that say a length: one
Content-Length in up to seven digits, no Transfer-Encoding, Trailer or Upgrade, nothing of a
connection but that it stays, no folded line, no bare LF, no control character, a status that always
has a body. Whatever else a response is, it goes by the gate.
"""

from __future__ import annotations

import functools
import itertools
import string
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
TARGET = CHECKOUT / "bpf/include/kmesh/http/response_table.h"

BAD, END, START = 0, 1, 2
DIGIT = 0x100  # the byte is a digit of the length
DULL = 0x200  # what follows does not matter up to a control character
_TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
_BLANK = " \t"
_VALUE = [9, *range(32, 127), *range(128, 256)]
_DIGITS = 7
_REFUSED = ("transfer-encoding", "trailer", "upgrade")
_NAMES = ("content-length", "connection", *_REFUSED)
_STAYS = "keep-alive"
# Those of a body, always. 1xx are no responses yet.
_STATUSES = [code for code in range(200, 600) if code not in (204, 205, 304)]

State = tuple[str, ...]


class Automaton:
    """States by what they stand for, numbered as they are met."""

    def __init__(self) -> None:
        self._numbers: dict[State, int] = {}
        self.rows: list[list[int]] = [[BAD] * 256, [END] * 256]
        self._open: list[State] = []
        self._number(("status", *(f"HTTP/1.1 {code} " for code in _STATUSES)))
        while self._open:
            state = self._open.pop(0)
            for byte, then, flags in _steps(state):
                self.rows[self._numbers[state]][byte] = self._number(then) | flags

    def _number(self, state: State) -> int:
        if state == ("end",):
            return END
        if state not in self._numbers:
            self._numbers[state] = len(self.rows)
            self.rows.append([BAD] * 256)
            self._open.append(state)
        return self._numbers[state]


Step = tuple[int, State, int]


def _to(bytes_: Iterable[str | int], then: State, flags: int = 0) -> Iterator[Step]:
    for byte in bytes_:
        yield (ord(byte) if isinstance(byte, str) else byte), then, flags


def _steps(state: State) -> Iterator[Step]:
    return _KINDS[state[0]](*state[1:])


def _status(*lines: str) -> Iterator[Step]:
    """`lines`: how the status line may go on, up to its reason."""
    if lines == ("",):
        yield from _value("")
        return
    for byte in sorted({line[0] for line in lines}):
        rest = sorted({line[1:] for line in lines if line[0] == byte})
        yield from _to(byte, ("status", *rest))


def _value(length: str) -> Iterator[Step]:
    """What a line says that does not matter; `length`: whether there was one."""
    yield from _to(_VALUE, ("value", length), DULL)
    yield from _to("\r", ("line", length))


def _line(length: str) -> Iterator[Step]:
    yield from _to("\n", ("first", length))


def _first(length: str) -> Iterator[Step]:
    """The first byte of a line."""
    yield from _name(length, "")
    if length:
        yield from _to("\r", ("last",))


def _last() -> Iterator[Step]:
    yield from _to("\n", ("end",))


def _name(length: str, seen: str) -> Iterator[Step]:
    """`seen`: the name so far, while it can become one that matters."""
    for byte in _TOKEN:
        name = seen + byte.lower()
        matters = any(known.startswith(name) for known in _NAMES)
        yield from _to(byte, ("name", length, name) if matters else ("other", length))
    if seen in _REFUSED or not seen:
        return
    if seen == "content-length":
        if not length:
            yield from _to(":", ("blank",))
    elif seen == "connection":
        yield from _to(":", ("stays", length, ""))
    else:
        yield from _to(":", ("value", length), DULL)


def _other(length: str) -> Iterator[Step]:
    yield from _to(_TOKEN, ("other", length))
    yield from _to(":", ("value", length), DULL)


def _blank() -> Iterator[Step]:
    """Before the length."""
    yield from _to(_BLANK, ("blank",))
    yield from _to("0", ("digits", str(_DIGITS)), DIGIT)
    yield from _to("123456789", ("digits", "1"), DIGIT)


def _digits(count: str) -> Iterator[Step]:
    if int(count) < _DIGITS:
        yield from _to(string.digits, ("digits", str(int(count) + 1)), DIGIT)
    yield from _to("\r", ("line", "length"))


def _stays(length: str, seen: str) -> Iterator[Step]:
    if not seen:
        yield from _to(_BLANK, ("stays", length, ""))
    if seen == _STAYS:
        yield from _to("\r", ("line", length))
        return
    byte = _STAYS[len(seen)]
    yield from _to(dict.fromkeys(byte + byte.upper()), ("stays", length, seen + byte))


_KINDS: dict[str, Callable[..., Iterator[Step]]] = {
    "status": _status,
    "value": _value,
    "line": _line,
    "first": _first,
    "last": _last,
    "name": _name,
    "other": _other,
    "blank": _blank,
    "digits": _digits,
    "stays": _stays,
}


@functools.cache
def _rows() -> list[list[int]]:
    return Automaton().rows


def read(data: bytes) -> tuple[int, int] | None:
    """What the kernel makes of bytes: the head's length and the body's; None: nothing."""
    rows, state, length = _rows(), START, 0
    for at, byte in enumerate(data):
        entry = rows[state][byte]
        if entry & DIGIT:
            length = length * 10 + (byte & 15)
        state = entry & 0xFF
        if state == END:
            return at + 1, length
        if state == BAD:
            return None
    return None


def _runs(base: int, row: list[int]) -> Iterator[str]:
    """A row's cells that are not 0, like ones together."""
    at = 0
    for entry, run in itertools.groupby(row):
        size = len(list(run))
        if entry:
            last = f" ... {base + at + size - 1}" if size > 1 else ""
            yield f"[{base + at}{last}]={entry}"
        at += size


def render() -> str:
    """The header's text."""
    rows = Automaton().rows
    assert len(rows) <= 256, len(rows)
    states = 1 << (len(rows) - 1).bit_length()
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-only */",
        "/* Generated by `python -m builder.responses`: do not edit. */",
        "#ifndef KMESH_HTTP_RESPONSE_TABLE_H",
        "#define KMESH_HTTP_RESPONSE_TABLE_H",
        "",
        "#include <linux/types.h>",
        "",
        f"#define KMESH_RESPONSE_BAD   {BAD}",
        f"#define KMESH_RESPONSE_END   {END}",
        f"#define KMESH_RESPONSE_START {START}",
        f"#define KMESH_RESPONSE_CELLS {states * 256}",
        f"#define KMESH_RESPONSE_DULL  0x{DULL:x}",
        "",
        "/* By state << 8 | byte: the next state, and in bit 8 whether the byte is a digit of the",
        " * length; KMESH_RESPONSE_DULL: the next byte is in a value, where no visible one matters. */",
        "/* clang-format off */",
        "static const __u16 kmesh_response_table[KMESH_RESPONSE_CELLS] = {",
    ]
    for number, row in enumerate(rows):
        if any(row):
            lines.append(",".join(_runs(number << 8, row)) + ",")
    return "\n".join([*lines, "};", "/* clang-format on */", "", "#endif", ""])


def main() -> int:
    """Write it."""
    TARGET.write_text(render(), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
