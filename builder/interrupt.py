# SPDX-License-Identifier: Apache-2.0
"""How a build ends when it is told to: in order, with one line about what is left."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import click

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Ending:
    """What an interrupt at this moment leaves, for people.

    Attributes:
        left: one line; whoever gets further changes it.
    """

    left: str


@contextmanager
def ended_cleanly(left: str) -> Iterator[Ending]:
    """Treat SIGTERM as Ctrl-C: whatever runs is ended in order, then one line tells what is left.

    Args:
        left: that line, as long as nobody changes it.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    ending = Ending(left)
    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield ending
    except KeyboardInterrupt:
        click.echo(f"interrupted: {ending.left}", err=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put SIGTERM and Ctrl-C off to the end of a `with` block: what is in it happens as a whole."""
    arrived: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, remember) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for first in arrived[:1]:
        signal.raise_signal(first)
