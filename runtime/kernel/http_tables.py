# SPDX-License-Identifier: Apache-2.0
"""Reading what the enhanced path routes by, as it stands in the kernel: for questions, changing nothing."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap
from runtime.errors import KmeshError
from runtime.tables.enhanced_layout import DIGEST

_NEEDED = (
    "http_ports", "http_routes", "http_grammars", "http_graphs", "clusters", "slots", "route_stats",
    "http_clusters", "http_members", "http_texts",
)  # fmt: skip


class HttpTables:
    """The maps of the enhanced path, to be read.

    Args:
        maps: by name, open.
    """

    def __init__(self, maps: Mapping[str, BpfMap]) -> None:
        self._maps = maps

    def lookup(self, table: str, key: bytes) -> bytes | None:
        """The value of a key now, or None."""
        return self._maps[table].lookup(key)

    def items(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Every element of a table."""
        return self._maps[table].items()

    def content(self, table: str, number: int) -> bytes | None:
        """A grammar or a graph, whole, or None."""
        found = self._maps[table].lookup(struct.pack("=Q", number))
        if found is None:
            return None
        try:
            inner = BpfMap.by_id(struct.unpack("=I", found)[0])
        except BpfError:
            return None  # it has just gone
        try:
            with mmap.mmap(
                inner.fd, inner.value_size * inner.max_entries, prot=mmap.PROT_READ
            ) as all_:
                return all_[:]
        finally:
            inner.close()


@contextmanager
def open_http_tables(pins: Path) -> Iterator[HttpTables]:
    """Open what is pinned below a daemon's directory for pins.

    Raises:
        KmeshError: there is nothing of this version's, or it must not be opened.
    """
    home = pins / "enhanced" / DIGEST[:16]
    if not (home / _NEEDED[0]).exists():
        raise KmeshError(f"no HTTP routes are pinned at {home}: the enhanced path does not run")
    with ExitStack() as stack:
        maps = {}
        for name in _NEEDED:
            maps[name] = BpfMap.pinned(home / name)
            stack.callback(maps[name].close)
        yield HttpTables(maps)
