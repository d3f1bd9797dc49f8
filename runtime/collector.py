# SPDX-License-Identifier: Apache-2.0
"""Python's cyclic garbage collector, kept out of where it finds nothing and costs much.

A mesh is a million objects in no cycle. The collector walks all of them again and again while they
are made, a quarter of the time of a first sync, and once in a while ever after.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Pauses:
    """Who wants it paused now: decoding and programming overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._was_enabled = False

    def begin(self) -> None:
        with self._lock:
            if not self._count:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count and self._was_enabled:
                gc.enable()


_pauses = _Pauses()


@contextmanager
def collector_paused(*, when: bool) -> Iterator[None]:
    """Keep the collector out of a block that makes many objects and no cycles. Any thread may.

    Args:
        when: without, nothing is done.
    """
    if not when:
        yield
        return
    _pauses.begin()
    try:
        yield
    finally:
        _pauses.end()


def spare_what_is_there() -> None:
    """Have the collector never look again at the objects that there are now; counts still free them."""
    gc.freeze()
