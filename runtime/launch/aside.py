# SPDX-License-Identifier: Apache-2.0
"""Work in a forked child, while this process does something else: two cores, no shared interpreter."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Generic, NoReturn, TypeVar

from runtime.errors import KmeshError

_T = TypeVar("_T")


class Aside(Generic[_T]):
    """Begins at once; ask `result` for what came of it. Start it before there are threads.

    Args:
        work: what to do; its result can be pickled. Done here after all where the child fails.
        in_child: what the child is to let go of first.
    """

    def __init__(self, work: Callable[[], _T], *, in_child: Callable[[], None]) -> None:
        self._work = work
        reader, writer = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(reader)
            _become(work, in_child, writer)
        os.close(writer)
        self._reader: int | None = reader

    def result(self) -> _T:
        """Wait for the result; for one call.

        Raises:
            KmeshError: the work raised it.
        """
        told = self._wait()
        if not told:
            return self._work()
        good, value = pickle.loads(told)  # noqa: S301 - of our own child
        if not good:
            raise KmeshError(value[0], hint=value[1])
        result: _T = value
        return result

    def close(self) -> None:
        """Wait for the child to clear away what it made. Idempotent."""
        self._wait()

    def _wait(self) -> bytes:
        if self._reader is None:
            return b""
        with os.fdopen(self._reader, "rb") as pipe:
            self._reader = None
            told = pipe.read()
        os.waitpid(self._child, 0)
        return told


def _become(work: Callable[[], object], in_child: Callable[[], None], writer: int) -> NoReturn:
    """Be the child. A signal waits until it has cleared away; its own children end at once."""
    own = os.getpid()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != own:
            os._exit(128 + number)

    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, on_signal)
        in_child()
        with suppress(Exception), os.fdopen(writer, "wb") as pipe:
            pickle.dump(_outcome(work), pipe)
    finally:
        os._exit(0)


def _outcome(work: Callable[[], object]) -> tuple[bool, object]:
    try:
        return True, work()
    except KmeshError as error:
        return False, (str(error), error.hint)
