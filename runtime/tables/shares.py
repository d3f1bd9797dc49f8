# SPDX-License-Identifier: Apache-2.0
"""Weights of the members of weighted groups, so that each group gets its share as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

from runtime.tables.endpoints import MAX_WEIGHT


def shares(groups: Sequence[tuple[int, Sequence[int]]]) -> list[list[int]]:
    """What each member is to weigh.

    Args:
        groups: the weight of each, and the capacities of its members, by which they share it.

    Returns:
        the weights by group, in whole numbers up to MAX_WEIGHT: exact where those suffice, else
        to the nearest; a member of a group with a weight has at least 1. A group without a weight
        gets nothing, and the share of one without members is the others'.
    """
    parts = [
        [Fraction(weight * capacity, sum(capacities)) for capacity in capacities]
        for weight, capacities in groups
    ]
    positive = [part for group in parts for part in group if part > 0]
    if not positive:
        return [[0] * len(group) for group in parts]
    scale = lcm(*(part.denominator for part in positive))
    scaled = Fraction(scale, gcd(*(int(part * scale) for part in positive)))
    scaled = min(scaled, MAX_WEIGHT / max(positive))
    return [[max(1, round(part * scaled)) if part else 0 for part in group] for group in parts]
