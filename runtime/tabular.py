# SPDX-License-Identifier: Apache-2.0
"""Tables as lines of text that fit a width: cells are wrapped, and nothing is cut.

Where many columns share few characters, long texts (reasons, matches) are better read beneath their row
than in a column of single words: such columns are named by whoever prints the table.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence

_GAP = 2
_READABLE = 28  # a column of sentences that is narrower goes beneath its row
_LONGEST_WORD = 40  # that is kept whole at the cost of other columns
_INDENT = 4
_NOTHING = ("", "-")

Row = Sequence[str]


def lay_out(
    columns: Row,
    rows: Iterable[Sequence[object]],
    *,
    width: int,
    beneath: Collection[str] = (),
    rule: str = "─",
) -> Iterator[str]:
    """The lines of a table: its head, a rule, its rows.

    Args:
        columns: their names.
        rows: a cell for each column; a line's end in one is a space.
        width: characters of a line; a single word that is longer is broken.
        beneath: columns that go beneath their row where they cannot be read beside it.
        rule: what the line under the head is made of.
    """
    cells = [[" ".join(str(cell).split("\n")).strip() for cell in row] for row in rows]
    kept = list(range(len(columns)))
    widths = _share([columns, *cells], width)
    names = [_natural(columns, cells, index) for index in kept]
    if any(
        widths[index] < min(names[index], _READABLE) for index in kept if columns[index] in beneath
    ):
        kept = [index for index in kept if columns[index] not in beneath]
        widths = _share([[row[index] for index in kept] for row in [columns, *cells]], width)
    yield from _lines([columns[index] for index in kept], widths)
    yield rule * min(sum(widths) + _GAP * (len(widths) - 1), width)
    below = [index for index in range(len(columns)) if index not in kept]
    for row in cells:
        yield from _lines([row[index] for index in kept], widths)
        yield from _beneath([(columns[index], row[index]) for index in below], width)


def _natural(columns: Row, cells: Iterable[Row], index: int) -> int:
    return max(len(row[index]) for row in [columns, *cells])


def _share(rows: Sequence[Row], width: int) -> list[int]:
    """How wide each column is: as wide as its cells if all fit, else its words, and what is left evenly."""
    wanted = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(width - _GAP * (len(wanted) - 1), len(wanted))
    if sum(wanted) <= room:
        return wanted
    made = [
        min(max(len(word) for cell in column for word in (cell.split() or [""])), _LONGEST_WORD)
        for column in zip(*rows, strict=True)
    ]
    made = [max(one, 1) for one in made]
    while sum(made) > room:
        made[made.index(max(made))] -= 1
    for _ in range(room - sum(made)):
        short = [index for index, one in enumerate(made) if one < wanted[index]]
        made[min(short, key=lambda index: made[index])] += 1
    return made


def _lines(row: Row, widths: Sequence[int]) -> Iterator[str]:
    wrapped = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, wrapped), default=0)):
        parts = (
            (lines[number] if number < len(lines) else "").ljust(width)
            for lines, width in zip(wrapped, widths, strict=True)
        )
        yield (" " * _GAP).join(parts).rstrip()


def _beneath(cells: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    label = max((len(name) for name, _ in cells), default=0)
    for name, text in cells:
        if text in _NOTHING:
            continue
        head = f"{name.lower():<{label}}"
        for line in _wrap(text, max(width - _INDENT - label - _GAP, 1)):
            yield f"{' ' * _INDENT}{head}{' ' * _GAP}{line}"
            head = " " * label


def _wrap(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
