# SPDX-License-Identifier: Apache-2.0
"""Shares of requests, as Envoy writes them: a numerator and the name of a denominator."""

from __future__ import annotations

from typing import Any

_DENOMINATORS = (100, 10_000, 1_000_000)


def fraction(wire: Any) -> tuple[int, int]:
    """A `FractionalPercent` as numerator and denominator; all of it where it says more than that."""
    if not 0 <= wire.denominator < len(_DENOMINATORS):
        return 0, 100
    whole = _DENOMINATORS[wire.denominator]
    return min(wire.numerator, whole), whole


def percent(share: tuple[int, int]) -> str:
    """A share in words."""
    return f"{100 * share[0] / share[1]:g} %"
