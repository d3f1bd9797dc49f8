# SPDX-License-Identifier: Apache-2.0
"""Rows of clusters that hash or that the gate governs, and the sets of endpoints that they point at.

A set is immutable: its number is a digest. It is written before a row points at it, and goes when none does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from runtime.bpf.maps import BpfMap
from runtime.tables.enhanced_layout import HttpCluster, HttpClusterKey, HttpMemberKey

PLAIN = HttpCluster(*(0,) * len(HttpCluster._fields))


class ClusterRows:
    """What is in the maps when it is made is taken over.

    Args:
        maps: the path's maps, open.
    """

    def __init__(self, maps: Mapping[str, BpfMap]) -> None:
        self._map, self._members = maps["http_clusters"], maps["http_members"]
        self._rows = {
            HttpClusterKey.unpack(key).cluster: HttpCluster.unpack(value)
            for key, value in self._map.items()
        }
        self._sets: dict[int, int] = {}  # how many members are there, by number
        for key, _ in self._members.items():  # noqa: PERF102  (these come in batches)
            member = HttpMemberKey.unpack(key)
            self._sets[member.set] = max(self._sets.get(member.set, 0), member.place + 1)
        self._users = Counter(row.members for row in self._rows.values())  # rows, by set
        for number in self._sets.keys() - self._users.keys():
            self._remove(number)

    def ring_of(self, number: int) -> int:
        """The ring of a cluster; 0 for none."""
        return self._rows.get(number, PLAIN).ring

    def rings(self) -> frozenset[int]:
        """Rings that are in use."""
        return frozenset(row.ring for row in self._rows.values())

    def put(self, number: int, row: HttpCluster, members: Sequence[bytes]) -> None:
        """Have a cluster follow a row; one that says nothing is none.

        Raises:
            BpfError: there is no room; what was said before holds.
        """
        before = self._rows.get(number, PLAIN)
        if before == row:
            return
        if row == PLAIN:
            self._map.delete(HttpClusterKey(number).pack())
            del self._rows[number]
        else:
            self._write(row.members, members)
            self._map.update(HttpClusterKey(number).pack(), row.pack())
            self._rows[number] = row
            self._users[row.members] += 1
        self._leave(before.members)

    def keep(self, numbers: Iterable[int]) -> bool:
        """Remove the rows of all other clusters; whether there were any."""
        gone = self._rows.keys() - set(numbers)
        for number in gone:
            self.put(number, PLAIN, ())
        return bool(gone)

    def _write(self, number: int, members: Sequence[bytes]) -> None:
        if not members or self._users[number]:
            return
        self._sets[number] = len(members)
        try:
            self._members.update_batch(_keys(number, len(members)), b"".join(members))
        except Exception:
            self._remove(number)
            raise

    def _leave(self, number: int) -> None:
        self._users[number] -= 1
        if self._users[number] <= 0:
            del self._users[number]
            self._remove(number)

    def _remove(self, number: int) -> None:
        """Not all of it may have been written."""
        self._members.delete_batch(_keys(number, self._sets.pop(number, 0)))


def _keys(number: int, count: int) -> bytes:
    return b"".join(HttpMemberKey(number, place).pack() for place in range(count))
