# SPDX-License-Identifier: Apache-2.0
"""What a user is told when something cannot be done: one line, and a hint that mends it."""

from __future__ import annotations


class KmeshError(Exception):
    """A failure that the user can act on; the command line prints it without a traceback.

    Args:
        message: what failed, and where: one line.
        hint: what would mend it, or None when nothing is known to.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
