# SPDX-License-Identifier: Apache-2.0
"""Operations on maps, and what is in the maps, both as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Op(NamedTuple):
    """Write or remove one element; `value` is None for a removal.

    `resource` is what an error about it is to name: a service's key.
    """

    table: str
    key: bytes
    value: bytes | None
    resource: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The service tables as they stand in the kernel: value by key."""

    frontends: Mapping[bytes, bytes] = field(default_factory=dict)
    clusters: Mapping[bytes, bytes] = field(default_factory=dict)
    slots: Mapping[bytes, bytes] = field(default_factory=dict)
    source_tlvs: Mapping[bytes, bytes] = field(default_factory=dict)
