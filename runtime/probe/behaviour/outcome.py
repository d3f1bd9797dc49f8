# SPDX-License-Identifier: Apache-2.0
"""How a check ends when it does not simply succeed."""

from __future__ import annotations

from runtime.errors import KmeshError


class BrokenError(KmeshError):
    """It ran, and behaved wrongly."""

    def __init__(self, what: str, *, expected: object, seen: object) -> None:
        super().__init__(f"{what}: expected {expected}, seen {seen}")


class AbsentError(KmeshError):
    """The kernel does not have it."""


class InconclusiveError(KmeshError):
    """The check could not be carried out."""
