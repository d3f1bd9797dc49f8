# SPDX-License-Identifier: Apache-2.0
"""What a check is, how it registers, and the words in which it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.outcome import BrokenError


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of the battery.

    Attributes:
        capability: what it gives a verdict on.
        run: tries it; returns when all is right, else raises one of the errors above.
        uses: the other check whose primitives it relies on: where trying that is unsafe, so is this.
        needs: capabilities that weaker evidence must have found for it to make sense.
        consequence: what it costs the user when it is not there.
        remedy: what would mend that.
    """

    capability: str
    run: Callable[[Bench], None]
    uses: str
    needs: frozenset[str]
    consequence: str
    remedy: str


CHECKS: dict[str, Check] = {}


def check(
    capability: str,
    *,
    uses: str = "",
    needs: tuple[str, ...] = (),
    consequence: str,
    remedy: str,
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Register a function as the check of a capability; its module's docstring describes it."""

    def register(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        run.__doc__ = run.__doc__ or sys.modules[run.__module__].__doc__
        CHECKS[capability] = Check(
            capability=capability,
            run=run,
            uses=uses,
            needs=frozenset(needs),
            consequence=consequence,
            remedy=remedy,
        )
        return run

    return register


def expect(what: str, *, expected: object, seen: object) -> None:
    """Fail when what was seen is not what was expected.

    Raises:
        BrokenError: they differ.
    """
    if seen != expected:
        raise BrokenError(what, expected=expected, seen=seen)


def expect_bytes(what: str, *, sent: bytes, received: bytes) -> None:
    """Fail when bytes were lost, added or changed, saying where.

    Raises:
        BrokenError: they differ.
    """
    if sent == received:
        return
    pairs = zip(sent, received, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(sent), len(received)))
    seen = f"{len(received)} bytes, the first difference at byte {at}"
    raise BrokenError(what, expected=f"the {len(sent)} bytes sent", seen=seen)
