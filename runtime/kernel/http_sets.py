# SPDX-License-Identifier: Apache-2.0
"""Grammars and graphs of route tables in the kernel: each a map of its own, made whole, then shown.

Whoever is to use a set is pointed at it after `put`; it is removed with `drop` when nobody is. Who reads it at
that moment keeps it: the kernel frees it later.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Collection, Mapping

from runtime.bpf.lib import check, lib
from runtime.bpf.maps import BpfMap
from runtime.tables.http_layout import MAPS, HttpCell, HttpMove
from runtime.tables.http_numbers import MOVES
from runtime.tables.http_routes import CompiledRoutes

_CELL = len(HttpCell(0, 0, 0, 0).pack())
_MOVE = len(HttpMove(0, 0, 0, 0, 0).pack())


class _CreateOptions(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.0, up to the flags."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    )


class HttpSets:
    """The maps of maps.

    Args:
        maps: of the loaded objects, by name: `http_grammars` and `http_graphs`.
    """

    def __init__(self, maps: Mapping[str, BpfMap]) -> None:
        self._grammars, self._graphs = maps["http_grammars"], maps["http_graphs"]

    def put(self, compiled: CompiledRoutes) -> None:
        """Make a set usable; one that is there already is the same.

        Raises:
            BpfError: the kernel refused, for want of memory or of room in the maps.
        """
        value = MOVES * _MOVE
        _put(self._grammars, compiled.set.grammar, compiled.grammar, value=value, like="http_moves")
        _put(self._graphs, compiled.set.graph, compiled.graph, value=_CELL, like="http_cells")

    def keep(self, sets: Collection[CompiledRoutes]) -> None:
        """Drop all but these."""
        _keep(self._grammars, {one.set.grammar for one in sets})
        _keep(self._graphs, {one.set.graph for one in sets})


def _key(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _keep(outer: BpfMap, numbers: Collection[int]) -> None:
    for key in list(outer.keys()):
        if int.from_bytes(key, "little") not in numbers:
            outer.delete(key)


def _put(outer: BpfMap, number: int, data: bytes, *, value: int, like: str) -> None:
    if outer.lookup(_key(number)) is not None:
        return
    layout = MAPS[like]
    options = _CreateOptions(sz=ctypes.sizeof(_CreateOptions), map_flags=layout.flags)
    made = lib().bpf_map_create(
        layout.type, like.encode(), 4, value, len(data) // value, ctypes.byref(options)
    )
    check(made, f"cannot make a map of {len(data)} bytes for {outer.name}")
    try:
        with mmap.mmap(made, len(data)) as memory:
            memory[:] = data
        outer.update(_key(number), made.to_bytes(4, "little"))
    finally:
        os.close(made)
