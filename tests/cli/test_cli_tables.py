# SPDX-License-Identifier: Apache-2.0
"""Tables fit the terminal and a pipe, and nothing of them is cut."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.tabular import lay_out

WORDS = (
    "a",
    "to",
    "10.96.0.10:80",
    "kernel",
    "outbound|9080|v1|reviews.shop.svc.cluster.local",
    "-",
)
cells = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.tuples(cells, cells, cells, cells), max_size=6),
    width=st.integers(40, 130),
    beneath=st.sets(st.sampled_from(("C", "WHY"))),
)
def test_every_line_fits_and_every_word_is_there(
    rows: list[tuple[str, ...]], width: int, beneath: set[str]
) -> None:
    lines = list(lay_out(("A", "B", "C", "WHY"), rows, width=width, beneath=beneath))
    assert max(map(len, lines)) <= width
    given_letters = Counter("".join(cell for row in rows for cell in row))
    told = Counter("".join(lines[2:]))
    for letter in given_letters.keys() - {" ", "-"}:
        assert told[letter] >= given_letters[letter]


def test_what_fits_is_one_line_a_row() -> None:
    lines = list(lay_out(("NAME", "WHY"), [("a", "because of b"), ("long-name", "-")], width=40))
    assert lines == [
        "NAME       WHY",
        "───────────────────────",
        "a          because of b",
        "long-name  -",
    ]


def test_a_reason_goes_beneath_its_row_where_it_cannot_be_read_beside_it() -> None:
    columns = ("SERVICE", "PORT", "ROUTE", "HITS", "P50", "WHY")
    row = (
        "bookstore/reviews",
        "9080",
        "7 rewritten",
        "120345",
        "0.21 ms",
        "prefix_rewrite: /x " * 3,
    )
    plain = ("bookstore/orders", "80", "1 all", "3", "2 ms", "-")
    assert list(lay_out(columns, [row, plain], width=80, beneath=("WHY",))) == [
        "SERVICE            PORT  ROUTE        HITS    P50",
        "─────────────────────────────────────────────────────",
        "bookstore/reviews  9080  7 rewritten  120345  0.21 ms",
        "    why  prefix_rewrite: /x prefix_rewrite: /x prefix_rewrite: /x",
        "bookstore/orders   80    1 all        3       2 ms",
    ]
    wide = list(lay_out(columns, [row, plain], width=120, beneath=("WHY",)))
    assert len(wide) == 4
    assert wide[2].endswith("prefix_rewrite: /x")


_PRINT = "from runtime.ui import print_table; print_table(('A', 'WHY'), [('x', 'word ' * 100)])"


def printed(checkout: Path, *, terminal: int | None, columns: str | None = None) -> list[str]:
    """What a process prints into a terminal of so many columns, or into a pipe."""
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    env |= {"PYTHONPATH": str(checkout)} | ({"COLUMNS": columns} if columns else {})
    command = [sys.executable, "-c", _PRINT]
    if terminal is None:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, terminal, 0, 0))
        subprocess.run(command, env=env, stdout=theirs, check=True)
        text = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    plain = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
    return plain.splitlines()


@pytest.mark.parametrize(
    ("terminal", "columns", "least", "most"),
    [(None, None, 100, 120), (80, None, 70, 80), (200, None, 190, 200), (None, "90", 80, 90)],
)
def test_a_table_is_as_wide_as_the_terminal_or_a_pipe(
    checkout: Path, terminal: int | None, columns: str | None, least: int, most: int
) -> None:
    lines = printed(checkout, terminal=terminal, columns=columns)
    assert least <= max(map(len, lines)) <= most
    assert "".join(lines).count("word") == 100
