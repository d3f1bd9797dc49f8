# SPDX-License-Identifier: Apache-2.0
"""What another path than the one that runs now has left pinned: who is managed by it, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.bpf.maps import BpfMap
from runtime.kernel.datapath import LINKS, remove_pins
from runtime.kernel.links import Links
from runtime.tables.layout import NetnsKey

PATHS = ("compat", "enhanced")


@dataclass(frozen=True, slots=True)
class OtherPath:
    """The path of an earlier daemon that ran in another mode; it serves until it is removed.

    Attributes:
        home: the directory of its pins.
    """

    home: Path

    @property
    def name(self) -> str:
        return self.home.name

    def cgroups(self) -> list[Path]:
        """Whose processes it manages."""
        return Links(self.home / LINKS).cgroups("cgroup") if (self.home / LINKS).is_dir() else []

    def namespaces(self) -> list[int]:
        """The cookies of the network namespaces that it manages."""
        found: set[int] = set()
        for pinned in self.home.glob("*/managed_netns"):
            table = BpfMap.pinned(pinned)
            found |= {NetnsKey.unpack(key).cookie for key, _ in table.items()}
            table.close()
        return sorted(found)

    def remove(self) -> None:
        """Detach it and remove its pins. Idempotent."""
        if (self.home / LINKS).is_dir():
            for scope in Links(self.home / LINKS).scopes():
                scope.remove()
        remove_pins(self.home)


def other_paths(pins: Path, name: str) -> list[OtherPath]:
    """Those pinned beside the path of this name."""
    homes = (pins / other for other in PATHS if other != name)
    return [OtherPath(home) for home in homes if home.is_dir()]
