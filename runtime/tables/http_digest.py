# SPDX-License-Identifier: Apache-2.0
"""Numbers in maps that stand for what they are made of."""

from __future__ import annotations

from hashlib import blake2b


def digest(*parts: bytes) -> int:
    """A number that stands for bytes, never 0."""
    state = blake2b(digest_size=8)
    for part in parts:
        state.update(len(part).to_bytes(8, "big") + part)
    return int.from_bytes(state.digest(), "big") or 1
