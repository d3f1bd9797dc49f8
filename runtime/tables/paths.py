# SPDX-License-Identifier: Apache-2.0
"""What each path is made of: the enhanced one is the compat path with some programs replaced."""

from __future__ import annotations

from pathlib import Path

_GROUPS = {"compat": ("compat",), "enhanced": ("compat", "enhanced")}  # what comes later replaces


def files_of(objects: Path, path: str) -> list[Path]:
    """The objects of a path, in the order in which they are loaded.

    Args:
        objects: the directory that holds `<group>/*.bpf.o`.
        path: "compat" or "enhanced".

    Returns:
        none when the path's own are not there.
    """
    if not any((objects / path).glob("*.bpf.o")):
        return []
    found: dict[str, Path] = {}
    for group in _GROUPS[path]:
        found |= {file.name: file for file in (objects / group).glob("*.bpf.o")}
    return [found[name] for name in sorted(found)]
