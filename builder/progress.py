# SPDX-License-Identifier: Apache-2.0
"""Progress for people: a line per image that moves on a terminal, plain lines everywhere else.

All of it goes to standard error: standard output is for results.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from runtime import ui

if TYPE_CHECKING:
    from rich.progress import TaskID

STEPS = ("base", "context", "build", "normalise", "load", "smoke", "describe")


class Progress:
    """Plain lines: seconds since the start, the image, what is done."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to clear."""

    def say(self, text: str) -> None:
        """Something about the whole build."""
        self._line("", text)

    def warn(self, text: str) -> None:
        """Something that the user must not miss."""
        self._line("", f"WARNING: {text}")

    def step(self, image: str, step: str, text: str) -> None:
        """An image is at a step (one of STEPS)."""
        self._line(image, f"{STEPS.index(step) + 1}/{len(STEPS)} {step}: {text}")

    def detail(self, image: str, text: str) -> None:
        """Something about the step that an image is at; plain output leaves it out."""

    def done(self, image: str, text: str) -> None:
        """An image is finished."""
        self._line(image, text)

    def _line(self, image: str, text: str) -> None:
        seconds = time.monotonic() - self._start
        prefix = f"[{image}] " if image else ""
        print(f"{seconds:6.1f}s {prefix}{text}", file=sys.stderr, flush=True)


class TerminalProgress(Progress):
    """Bars that move, with what is said above them."""

    def __init__(self) -> None:
        super().__init__()
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._console = ui.console(stderr=True)
        self._bars = Bars(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.fields[image]:<9}"),
            BarColumn(bar_width=14),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def warn(self, text: str) -> None:
        self._console.print(f"WARNING: {text}", style="bold yellow", markup=False)

    def step(self, image: str, step: str, text: str) -> None:
        self._bars.update(
            self._task(image), completed=STEPS.index(step), description=f"{step}: {text}"
        )

    def detail(self, image: str, text: str) -> None:
        width = max(self._console.width - 50, 20)
        self._bars.update(self._task(image), description=text[:width])

    def done(self, image: str, text: str) -> None:
        self._bars.update(self._task(image), completed=len(STEPS), description=text)

    def _line(self, image: str, text: str) -> None:
        self._console.print(f"{image + ': ' if image else ''}{text}", markup=False)

    def _task(self, image: str) -> TaskID:
        if image not in self._tasks:
            self._tasks[image] = self._bars.add_task("", total=len(STEPS), image=image)
        return self._tasks[image]


def make_progress() -> Progress:
    """The right one for standard error."""
    return TerminalProgress() if sys.stderr.isatty() else Progress()
