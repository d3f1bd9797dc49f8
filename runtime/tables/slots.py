# SPDX-License-Identifier: Apache-2.0
"""The slots of one cluster: where each endpoint stands, so that one more or less changes one slot.

Slots of a class are numbered without gaps. A new endpoint goes behind the last; where one leaves,
the last takes its place. What was in the kernel before a change is remembered until `flush`, which
gives the difference, so endpoints that come and go within one update cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from runtime.tables.layout import Cluster, Endpoint

CLASSES = 16
_SHIFT = 24
_INDEX = (1 << _SHIFT) - 1

Owner = str | int  # a workload's uid; a number for a slot found in the kernel, until it is claimed

_orphan_numbers = count()


def class_of(weight: int) -> int:
    """Class c holds the weights from 2^c to 2^(c+1) - 1."""
    return weight.bit_length() - 1


class Slots:
    """The endpoints of one cluster in the order of their slots."""

    __slots__ = ("_classes", "_dirty", "_orphans", "_sums", "_where", "growth")

    def __init__(self) -> None:
        self._classes: dict[int, list[tuple[Owner, bytes]]] = {}
        self._sums: dict[int, int] = {}
        self._where: dict[Owner, int] = {}
        self._dirty: dict[int, bytes | None] = {}
        self._orphans: dict[bytes, list[int]] = {}
        self.growth = 0  # slots that the kernel does not have yet

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, owner: Owner) -> bool:
        return owner in self._where

    def owners(self) -> list[str]:
        return [owner for owner in self._where if isinstance(owner, str)]

    def put(self, owner: str, packed: bytes, weight: int) -> None:
        """Add an endpoint, or change the one that its owner has."""
        slot = self._where.get(owner)
        if slot is None and not self._claim(owner, packed):
            self._append(owner, packed, weight)
        elif slot is not None and self._classes[slot >> _SHIFT][slot & _INDEX][1] != packed:
            if slot >> _SHIFT == class_of(weight):
                self._replace(slot, owner, packed)
            else:
                self.drop(owner)
                self._append(owner, packed, weight)

    def would_grow(self, owner: str, packed: bytes, weight: int) -> bool:
        """Whether `put` may need a slot that the kernel does not have yet."""
        slot = self._where.get(owner)
        if slot is None:
            return packed not in self._orphans
        return slot >> _SHIFT != class_of(weight)

    def drop(self, owner: Owner) -> None:
        """Take an endpoint out; nothing happens when it has none."""
        slot = self._where.pop(owner, None)
        if slot is None:
            return
        members = self._classes[slot >> _SHIFT]
        last = (slot & ~_INDEX) | (len(members) - 1)
        self._touch(last)
        gone = members[slot & _INDEX]
        mover = members.pop()
        self._sums[slot >> _SHIFT] -= _weight(gone[1])
        if slot != last:
            self._touch(slot)
            members[slot & _INDEX] = mover
            self._where[mover[0]] = slot
        if self._dirty[last] is None:
            self.growth -= 1

    def _touch(self, slot: int) -> None:
        if slot not in self._dirty:
            members = self._classes[slot >> _SHIFT]
            index = slot & _INDEX
            self._dirty[slot] = members[index][1] if index < len(members) else None

    def _append(self, owner: Owner, packed: bytes, weight: int) -> None:
        number = class_of(weight)
        members = self._classes.setdefault(number, [])
        slot = number << _SHIFT | len(members)
        self._touch(slot)
        if self._dirty[slot] is None:
            self.growth += 1
        members.append((owner, packed))
        self._where[owner] = slot
        self._sums[number] = self._sums.get(number, 0) + weight

    def _replace(self, slot: int, owner: Owner, packed: bytes) -> None:
        self._touch(slot)
        members = self._classes[slot >> _SHIFT]
        before = members[slot & _INDEX][1]
        self._sums[slot >> _SHIFT] += _weight(packed) - _weight(before)
        members[slot & _INDEX] = (owner, packed)

    # Adoption: what an earlier process left in the kernel, until it is claimed or dropped.

    @classmethod
    def adopted(cls, cluster: Cluster | None, found: dict[int, bytes]) -> Slots:
        """Slots as they stand in the kernel.

        Args:
            cluster: the cluster's value; without one, no slot is in use.
            found: value by slot number; those that the cluster does not count are left-overs of a
                process that was killed, and go with the next `flush`.
        """
        slots = cls()
        for number, size in enumerate(cluster.counts if cluster else ()):
            for index in range(size):
                slot = number << _SHIFT | index
                packed = found.get(slot)
                if packed is None or class_of(_weight(packed) or 1) != number:
                    break  # never written by us: what follows is taken for left-overs
                slots._adopt(number, packed)
        slots._dirty = {slot: packed for slot, packed in found.items() if not slots._has(slot)}
        return slots

    def _has(self, slot: int) -> bool:
        return (slot & _INDEX) < len(self._classes.get(slot >> _SHIFT, ()))

    def _adopt(self, number: int, packed: bytes) -> None:
        owner = next(_orphan_numbers)
        members = self._classes.setdefault(number, [])
        self._where[owner] = number << _SHIFT | len(members)
        members.append((owner, packed))
        self._sums[number] = self._sums.get(number, 0) + _weight(packed)
        self._orphans.setdefault(packed, []).append(owner)

    def _claim(self, owner: str, packed: bytes) -> bool:
        waiting = self._orphans.get(packed)
        if not waiting:
            return False
        orphan = waiting.pop()
        if not waiting:
            del self._orphans[packed]
        slot = self._where.pop(orphan)
        self._where[owner] = slot
        self._classes[slot >> _SHIFT][slot & _INDEX] = (owner, packed)
        return True

    def drop_orphans(self) -> None:
        for waiting in self._orphans.values():
            for orphan in waiting:
                self.drop(orphan)
        self._orphans = {}

    # What to write.

    def flush(self) -> Iterator[tuple[int, bytes | None]]:
        """The slots that differ from the kernel's: their new value, None for a removal."""
        for slot, before in self._dirty.items():
            now = self._classes[slot >> _SHIFT][slot & _INDEX][1] if self._has(slot) else None
            if now != before:
                yield slot, now
        self._dirty = {}
        self.growth = 0

    def cluster(self) -> Cluster:
        """The cluster's value for what is in the slots now."""
        counts, weights = [0] * CLASSES, [0] * CLASSES
        for number, members in self._classes.items():
            counts[number], weights[number] = len(members), self._sums[number]
        return Cluster(sum(weights), 0, tuple(counts), tuple(weights))


def _weight(packed: bytes) -> int:
    return Endpoint.unpack(packed).weight
