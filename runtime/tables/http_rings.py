# SPDX-License-Identifier: Apache-2.0
"""Consistent hashing: buckets of hashes, each with an endpoint, that change little when endpoints do.

Endpoints have points on a ring, more by their weight, at places that depend on nothing else; a bucket is
the endpoint's whose point comes next. So who comes takes its share from all, and who goes leaves its
own to all: no other bucket changes. A request costs one look-up, however many endpoints there are.
Source: D. Karger et al., "Consistent hashing and random trees", STOC 1997.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b

CELL = 8  # bytes of an element of the map
MOST_POINTS = 65_536
_MOST_OF_ONE = 1024  # per unit of weight: shares are right to about 3 %
_FEW = 128  # endpoints: with more of them there are more buckets
_BUCKETS, _MORE_BUCKETS = 1 << 14, 1 << 16


def ring(endpoints: Sequence[tuple[bytes, int]]) -> bytes:
    """The elements of struct kmesh_http_cluster's ring.

    Args:
        endpoints: each packed, in 24 bytes, with its weight from 1 on.
    """
    buckets = _BUCKETS if len(endpoints) <= _FEW else _MORE_BUCKETS
    total = sum(weight for _, weight in endpoints)
    points = sorted(
        (place, packed, index)
        for index, (packed, weight) in enumerate(endpoints)
        for place in _places(packed, _count(weight, total))
    )
    if not points:
        return b""
    owners, at = [], 0
    for bucket in range(buckets):
        start = bucket * (1 << 64) // buckets
        while at < len(points) and points[at][0] < start:
            at += 1
        owners.append(points[at % len(points)][2])
    packed = b"".join(one[0] for one in endpoints)
    return struct.pack(f"={1 + buckets}Q", buckets, *owners) + packed


def _count(weight: int, total: int) -> int:
    """Points of an endpoint: a power of two for each unit of weight, so that a change of the others
    seldom changes it, and then by half.
    """
    if total > MOST_POINTS:
        return max(1, weight * MOST_POINTS // total)
    each = _MOST_OF_ONE
    while each * total > MOST_POINTS:
        each //= 2
    return weight * each


def _places(packed: bytes, count: int) -> Iterator[int]:
    for index in range(0, count, 8):
        found = blake2b(packed, salt=index.to_bytes(8, "little")).digest()
        yield from struct.unpack("=8Q", found)[: count - index]
