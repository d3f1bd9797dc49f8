# SPDX-License-Identifier: Apache-2.0
"""Why nothing usable could be made: a name that scripts can go by, an exit status, and what to install."""

from __future__ import annotations

from enum import Enum

from runtime.errors import KmeshError


class Reason(Enum):
    """The reasons, with their exit status (from 10 on: 1 and 2 are others' already)."""

    OUT_NOT_WRITABLE = ("out-not-writable", 10)
    NO_COMPILER = ("no-compiler", 11)
    NO_HEADERS = ("no-headers", 12)
    DOES_NOT_COMPILE = ("does-not-compile", 13)
    BAD_EVIDENCE = ("bad-evidence", 14)
    KERNEL_LACKS = ("kernel-lacks", 15)
    REFUSED_BY_VERIFIER = ("refused-by-verifier", 16)
    NO_IMAGE = ("no-image", 17)
    ENGINE_REFUSED = ("engine-refused", 18)
    NO_EVIDENCE = ("no-evidence", 19)

    @property
    def label(self) -> str:
        return self.value[0]

    @property
    def status(self) -> int:
        return self.value[1]


class HostError(KmeshError):
    """Nothing usable was made.

    Attributes:
        reason: which kind of failure.
    """

    def __init__(self, reason: Reason, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"[{reason.label}] {message}", hint=hint)
        self.reason = reason
