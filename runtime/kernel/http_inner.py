# SPDX-License-Identifier: Apache-2.0
"""Contents that never change, by their digest: each an inner map of its own, made whole, then shown."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterable, Mapping

from runtime.bpf.maps import BpfMap
from runtime.tables.http_layout import HttpSet
from runtime.tables.http_routes import CompiledRoutes

INNER = 1 << 12  # BPF_F_INNER_MAP
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE
_CELL = 16  # struct kmesh_http_cell


def put_set(maps: Mapping[str, BpfMap], compiled: CompiledRoutes) -> None:
    """Make what routes are matched by usable, for whoever is pointed at it; what is there is the same.

    Args:
        maps: `http_grammars` and `http_graphs`.

    Raises:
        BpfError: the kernel refused, for want of memory or of room in the maps.
    """
    moves = compiled.grammar
    add_inner(maps["http_grammars"], compiled.set.grammar, moves, len(moves), 0)
    add_inner(maps["http_graphs"], compiled.set.graph, compiled.graph, _CELL, INNER)


def keep_sets(maps: Mapping[str, BpfMap], sets: Iterable[HttpSet]) -> None:
    """Drop all but these; who reads another at this moment keeps it, and the kernel frees it later."""
    kept = list(sets)
    keep_inner(maps["http_grammars"], {one.grammar for one in kept})
    keep_inner(maps["http_graphs"], {one.graph for one in kept})


def keep_inner(outer: BpfMap, numbers: Collection[int]) -> None:
    """Drop all inner maps but these."""
    for key in list(outer.keys()):
        if struct.unpack("=Q", key)[0] not in numbers:
            outer.delete(key)


def add_inner(outer: BpfMap, number: int, content: bytes, each: int, flags: int) -> None:
    """An inner map with the content, unless it is there."""
    key = struct.pack("=Q", number)
    if outer.lookup(key) is not None:
        return
    count = len(content) // each
    inner = BpfMap.create_array(
        outer.name[:15], value_size=each, count=count, flags=_MMAPABLE | flags
    )
    try:
        inner.update_batch(b"".join(struct.pack("=I", n) for n in range(count)), content)
        outer.update(key, struct.pack("=I", inner.fd))
    finally:
        os.close(inner.fd)
