# SPDX-License-Identifier: Apache-2.0
"""How the demo speaks: headings, explanations, commands and what they print. Colour on a terminal only."""

from __future__ import annotations

import os
import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence

_WIDTH = 88
_steps = 0
_out = sys.stdout


def to_stderr() -> None:
    """Leave standard output to what a program is to read."""
    global _out  # noqa: PLW0603 - one demo, one place where it speaks
    _out = sys.stderr


def _print(text: str) -> None:
    print(text, file=_out, flush=True)


def _paint(text: str, code: str) -> str:
    colour = _out.isatty() and not os.environ.get("NO_COLOR")
    return f"\033[{code}m{text}\033[0m" if colour else text


def say(text: str) -> None:
    """Explain something, wrapped to a line's width."""
    paragraph = " ".join(text.split())
    _print(textwrap.fill(paragraph, width=_WIDTH, break_on_hyphens=False))


def step(title: str) -> None:
    """Begin the next step."""
    global _steps  # noqa: PLW0603 - one demo, one count
    _steps += 1
    _print(f"\n{_paint(f'{_steps}. {title}', '1')}")


def command(argv: Sequence[str]) -> None:
    """Show a command as it would be typed."""
    _print(_paint(f"  $ {shlex.join(argv)}", "36"))


def output(lines: Iterable[str]) -> None:
    """Show what something printed."""
    for line in lines:
        _print(f"    {line.rstrip()}")


def row(text: str, *, bright: bool) -> None:
    """Show a row of a table."""
    output([_paint(text, "32") if bright else text])


def good(text: str) -> None:
    _print(_paint(f"  ✓ {text}", "32"))


def bad(text: str) -> None:
    _print(_paint(f"  ✗ {text}", "31"))
