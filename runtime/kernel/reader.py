# SPDX-License-Identifier: Apache-2.0
"""Reading the pinned maps, whoever wrote them: for questions, with a daemon or without.

Nothing is locked, made or changed here. A daemon may write meanwhile: each element is read whole, and
what belongs together is for the reader's caller to compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap
from runtime.errors import KmeshError
from runtime.kernel.datapath import GATE, LINKS
from runtime.kernel.links import Links, Scope
from runtime.kernel.other_path import PATHS
from runtime.kernel.programs import digest_of

_TABLES = ("frontends", "clusters", "slots", "managed_netns")


class NothingPinnedError(KmeshError):
    """There is no data path in the kernel to be read."""


@dataclass(frozen=True, slots=True)
class PinnedTables:
    """One path's service tables as they stand in the kernel; from `open_tables`."""

    pins: Path
    path: str
    maps: Mapping[str, BpfMap]

    def lookup(self, table: str, key: bytes) -> bytes | None:
        """The value of a key now, or None."""
        return self.maps[table].lookup(key)

    def items(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Every element of a table."""
        return self.maps[table].items()

    def programs(self) -> dict[str, list[str]]:
        """The programs attached, by the cgroup in which they run."""
        return {str(scope.cgroup): scope.programs for scope in self._scopes()}

    def governed(self) -> list[str]:
        """The cgroups whose connections are balanced or routed; the gate's own is none."""
        return sorted(str(scope.cgroup) for scope in self._scopes() if scope.kind != GATE)

    def _scopes(self) -> list[Scope]:
        links = Links(self.pins / self.path / LINKS, make=False)
        return [scope for scope in links.scopes() if scope.is_alive]


@contextmanager
def open_tables(pins: Path) -> Iterator[PinnedTables]:
    """Open the tables that are pinned below a directory.

    Args:
        pins: the directory that a daemon was given for its pins.

    Raises:
        NothingPinnedError: there are none.
        KmeshError: they are another version's, or must not be opened.
    """
    home = _find(pins)
    with ExitStack() as stack:
        maps = {}
        for name in _TABLES:
            try:
                maps[name] = BpfMap.pinned(home / name)
            except BpfError as error:
                hint = "read it as root, with CAP_BPF or CAP_SYS_ADMIN"
                raise KmeshError(str(error), hint=hint) from error
            stack.callback(maps[name].close)
        yield PinnedTables(pins, home.parent.name, maps)


def _find(pins: Path) -> Path:
    """The directory with the tables of this version's layout."""
    try:
        found = sorted(path.parent for path in pins.glob("*/*/frontends"))
    except OSError as error:
        raise KmeshError(f"cannot read {pins}: {error.strerror}", hint="use sudo") from error
    homes = [home for home in found if home.parent.name in PATHS]
    if not homes:
        raise NothingPinnedError(f"no service tables are pinned at {pins}")
    ours = [home for home in homes if home.name == digest_of(home.parent.name)[:16]]
    if not ours:
        raise KmeshError(
            f"the maps at {homes[0]} are laid out by another version of Kmesh",
            hint="ask with that version's kmeshctl, or start this version's daemon: it takes over",
        )
    return ours[0]
