# SPDX-License-Identifier: Apache-2.0
"""Rings: shares by weight, and as few hashes as can be that change their endpoint."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from runtime.tables.http_ports import Target, mapped, ring_of
from runtime.tables.http_rings import CELL, ring
from tests.dataplane.world import chi_square


def owners(packed: bytes) -> list[bytes]:
    """The endpoint of each bucket."""
    (buckets,) = struct.unpack_from("=Q", packed)
    found = struct.unpack_from(f"={buckets}Q", packed, CELL)
    base = CELL * (1 + buckets)
    return [packed[base + 24 * one : base + 24 * one + 24] for one in found]


def endpoint(number: int) -> bytes:
    return number.to_bytes(24, "big")


def some(count: int, weight: int = 1) -> list[tuple[bytes, int]]:
    return [(endpoint(number), weight) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 7, 40, 129, 1000])
def test_who_leaves_changes_nobody_elses_buckets(count: int) -> None:
    before = owners(ring(some(count)))
    gone = endpoint(count // 2)
    after = owners(ring([one for one in some(count) if one[0] != gone])) if count > 1 else []
    if len(before) == len(after):
        moved = [one for one, other in zip(before, after, strict=True) if one != other]
        assert set(moved) == {gone}
    assert set(before) == {endpoint(number) for number in range(count)} or count > 500


@pytest.mark.parametrize("weights", [(1, 1), (1, 3, 6), (100, 1), (50_000, 30_000)])
def test_shares_are_by_weight(weights: tuple[int, ...]) -> None:
    given = [(endpoint(number), weight) for number, weight in enumerate(weights)]
    found = Counter(owners(ring(given)))
    for packed, weight in given:
        share, wanted = found[packed] / found.total(), weight / sum(weights)
        assert abs(share - wanted) < 0.06 * wanted + 0.01


def test_a_thousand_endpoints_have_alike_shares() -> None:
    found = Counter(owners(ring(some(1000))))
    assert len(found) == 1000
    assert max(found.values()) < 4 * found.total() / 1000


def test_the_order_in_which_endpoints_are_told_does_not_matter() -> None:
    there = [Target(f"10.0.0.{number}", 80, number + 1) for number in range(9)]
    assert ring_of(there) == ring_of(there[::-1])
    assert ring_of([]) == b""
    assert owners(ring_of(there))[0][:12] == mapped("10.0.0.0")[:12]


def test_hashes_spread_over_buckets() -> None:
    """What chi_square() measures is the ring, not the hash; shares are right to a few percent."""
    found = Counter(str(one) for one in owners(ring(some(10)))[::16])
    assert chi_square(found, dict.fromkeys(found, 1)) < 40
