# SPDX-License-Identifier: Apache-2.0
"""Rows of routes, by table and case, and the buckets that they take tokens from.

How many each table has is known here, as nobody else writes them: whatever goes is removed without a look at the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from runtime.bpf.maps import BpfMap
from runtime.tables.enhanced_layout import BucketKey, Route, RouteKey


class RouteRowsMap:
    """What is in the maps when it is made is taken over.

    Args:
        maps: the path's maps, open.
    """

    def __init__(self, maps: Mapping[str, BpfMap]) -> None:
        self._map, self._tokens = maps["http_routes"], maps["http_buckets"]
        self._counts: dict[int, int] = {}  # by table
        self._buckets: dict[int, set[int]] = {}  # of tables that limit rates
        for packed, row in self._map.items():
            key = RouteKey.unpack(packed)
            self._counts[key.table] = max(self._counts.get(key.table, 0), key.route + 1)
            bucket = Route.unpack(row).bucket
            if bucket:
                self._buckets.setdefault(key.table, set()).add(bucket)
        self._had_buckets = next(self._tokens.keys(), None) is not None

    def write(self, table: int, rows: Sequence[bytes], buckets: Collection[int]) -> None:
        """Write the rows of a table, which nothing has to point at yet.

        Raises:
            BpfError: there is no room; some may be there, until the next `keep`.
        """
        self._counts[table] = len(rows)
        if buckets:
            self._buckets[table] = set(buckets)
            self._had_buckets = True
        if rows:
            self._map.update_batch(_keys(table, len(rows)), b"".join(rows))

    def keep(self, tables: Collection[int]) -> None:
        """Remove the rows of all other tables.

        Raises:
            BpfError: some cannot be removed.
        """
        gone = self._counts.keys() - tables
        if not gone:
            return
        self._map.delete_batch(b"".join(_keys(table, self._counts[table]) for table in gone))
        for table in gone:
            del self._counts[table]
            self._buckets.pop(table, None)
        if self._had_buckets:
            self._sweep_buckets()

    def _sweep_buckets(self) -> None:
        """Remove buckets that no route takes tokens from; the gate makes those that are missing."""
        used = set().union(*self._buckets.values())
        held = list(self._tokens.keys())
        for key in held:
            if BucketKey.unpack(key).number not in used:
                self._tokens.delete(key)
        self._had_buckets = bool(held or self._buckets)


def _keys(table: int, count: int) -> bytes:
    return b"".join(RouteKey(table, index).pack() for index in range(count))
