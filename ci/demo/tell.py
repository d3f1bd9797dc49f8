# SPDX-License-Identifier: Apache-2.0
"""How the demo speaks: headings, explanations, commands and what they print. Colour on a terminal only."""

from __future__ import annotations

import os
import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence

_COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
_WIDTH = 88
_steps = 0


def _paint(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if _COLOUR else text


def say(text: str) -> None:
    """Explain something, wrapped to a line's width."""
    paragraph = " ".join(text.split())
    print(textwrap.fill(paragraph, width=_WIDTH, break_on_hyphens=False), flush=True)


def step(title: str) -> None:
    """Begin the next step."""
    global _steps  # noqa: PLW0603 - one demo, one count
    _steps += 1
    print(f"\n{_paint(f'{_steps}. {title}', '1')}", flush=True)


def command(argv: Sequence[str]) -> None:
    """Show a command as it would be typed."""
    print(_paint(f"  $ {shlex.join(argv)}", "36"), flush=True)


def output(lines: Iterable[str]) -> None:
    """Show what something printed."""
    for line in lines:
        print(f"    {line.rstrip()}", flush=True)


def good(text: str) -> None:
    print(_paint(f"  ✓ {text}", "32"), flush=True)


def bad(text: str) -> None:
    print(_paint(f"  ✗ {text}", "31"), flush=True)
