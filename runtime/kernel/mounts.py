# SPDX-License-Identifier: Apache-2.0
"""Mounts as /proc/self/mountinfo has them (proc(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount: `root` is what of the file system is seen there, `options` the file system's own."""

    point: Path
    type: str
    source: str
    root: str = "/"
    options: frozenset[str] = frozenset()


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)


def mounts(table: Path = Path("/proc/self/mountinfo")) -> list[Mount]:
    """What is mounted, in the order of mounting; later mounts hide earlier ones."""
    found = []
    for line in table.read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, source, *options = after.split(" ")
        root, point = map(_unescape, before.split(" ")[3:5])
        own = frozenset(options[-1].split(",")) if options else frozenset()
        found.append(Mount(Path(point), kind, _unescape(source), root, own))
    return found


def mount_of(path: Path) -> Mount:
    """The mount that a path lies on; the path need not exist."""
    path = path.resolve()
    on_the_way = [mount for mount in mounts() if path.is_relative_to(mount.point)]
    longest = max(len(mount.point.parts) for mount in on_the_way)
    return [mount for mount in on_the_way if len(mount.point.parts) == longest][-1]
