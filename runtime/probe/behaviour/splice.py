# SPDX-License-Identifier: Apache-2.0
"""splice(2), as Python has it for Linux: os.splice, non-blocking."""

from __future__ import annotations

import os

_SPLICE_F_NONBLOCK = 2


def splice(source: int, target: int, size: int) -> int:
    """Move up to `size` bytes between a pipe and something else; how many were moved.

    Raises:
        OSError: EAGAIN when there is nothing to move, or no room.
    """
    return os.splice(source, target, size, flags=_SPLICE_F_NONBLOCK)
