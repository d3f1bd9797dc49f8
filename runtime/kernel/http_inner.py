# SPDX-License-Identifier: Apache-2.0
"""Contents that never change, by their digest: each an inner map of its own, made whole, then shown."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection, Iterable, Mapping

from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap
from runtime.kernel.grace import Write, write_at_once
from runtime.tables.http_layout import HttpSet
from runtime.tables.http_routes import CompiledRoutes

INNER = 1 << 12  # BPF_F_INNER_MAP
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE
_CELL = 16  # struct kmesh_http_cell


class InnerMaps:
    """An outer map, and which numbers are in it: known without asking, as nobody else writes there.

    Args:
        outer: open; what is in it is taken over.
    """

    def __init__(self, outer: BpfMap) -> None:
        self._outer = outer
        self._there = {struct.unpack("=Q", key)[0] for key in outer.keys()}  # noqa: SIM118
        self._made: dict[int, int] = {}  # descriptors of those that are not shown yet

    @property
    def waiting(self) -> int:
        """How many are made, each with a descriptor, and not shown."""
        return len(self._made)

    def make(self, number: int, content: bytes, each: int, flags: int = INNER) -> None:
        """Make an inner map with the content, for `show`, unless it is there.

        Raises:
            BpfError: the kernel refused, for want of memory.
        """
        if number in self._there or number in self._made:
            return
        count = len(content) // each
        inner = BpfMap.create_array(
            self._outer.name[:15], value_size=each, count=count, flags=_MMAPABLE | flags
        )
        try:
            inner.update_batch(b"".join(struct.pack("=I", n) for n in range(count)), content)
        except BaseException:
            inner.close()
            raise
        self._made[number] = inner.fd

    def to_show(self, failed: dict[int, BpfError]) -> list[Write]:
        """What there is room for, in the order in which it was made."""
        room = self._outer.max_entries - len(self._there)
        numbers = list(self._made)
        for number in numbers[max(0, room) :]:
            failed[number] = BpfError(f"map {self._outer.name}: update", errno.E2BIG)
        return [
            Write(self._outer, _key(number), self._made[number])
            for number in numbers[: max(0, room)]
        ]

    def shown(
        self, refused: Mapping[tuple[str, bytes], BpfError], failed: dict[int, BpfError]
    ) -> None:
        """They are there now, but for those that are refused, or failed before."""
        for number, fd in self._made.items():
            error = refused.get((self._outer.name, _key(number)))
            if error is not None:
                failed[number] = error
            elif number not in failed:
                self._there.add(number)
            os.close(fd)
        self._made.clear()

    def to_drop(self, kept: Collection[int]) -> list[Write]:
        """All but these."""
        return [Write(self._outer, _key(number), None) for number in self._there - set(kept)]

    def dropped(self, kept: Collection[int], refused: Collection[tuple[str, bytes]]) -> None:
        """They are gone, but for those that are refused."""
        self._there = {
            number
            for number in self._there
            if number in kept or (self._outer.name, _key(number)) in refused
        }


class Sets:
    """What routes are matched by.

    Args:
        maps: `http_grammars` and `http_graphs`.
    """

    def __init__(self, maps: Mapping[str, BpfMap]) -> None:
        self.grammars, self.graphs = (
            InnerMaps(maps["http_grammars"]),
            InnerMaps(maps["http_graphs"]),
        )

    def make(self, compiled: CompiledRoutes) -> None:
        """Make a set, for `show`; what is there is the same.

        Raises:
            BpfError: the kernel refused, for want of memory.
        """
        moves = compiled.grammar
        self.grammars.make(compiled.set.grammar, moves, len(moves), 0)
        self.graphs.make(compiled.set.graph, compiled.graph, _CELL)

    def kept(self, sets: Iterable[HttpSet]) -> dict[InnerMaps, set[int]]:
        """What `keep` is to be told, to drop all but these."""
        kept = list(sets)
        return {
            self.grammars: {one.grammar for one in kept},
            self.graphs: {one.graph for one in kept},
        }


def show(maps: Iterable[InnerMaps]) -> list[dict[int, BpfError]]:
    """Have everything that was made be found, in one wait for all.

    Returns:
        for each map, what is not there, with the reason.
    """
    maps = list(maps)
    failed: list[dict[int, BpfError]] = [{} for _ in maps]
    refused = write_at_once(
        write for one, mine in zip(maps, failed, strict=True) for write in one.to_show(mine)
    )
    for one, mine in zip(maps, failed, strict=True):
        one.shown(refused, mine)
    return failed


def keep(kept: Mapping[InnerMaps, Collection[int]]) -> None:
    """Drop all others, in one wait for all; who reads one at this moment keeps it, and the kernel frees it later.

    Raises:
        BpfError: some cannot be removed.
    """
    refused = write_at_once(
        write for one, numbers in kept.items() for write in one.to_drop(numbers)
    )
    for one, numbers in kept.items():
        one.dropped(numbers, refused)
    for error in refused.values():
        raise error


def _key(number: int) -> bytes:
    return struct.pack("=Q", number)
