# SPDX-License-Identifier: Apache-2.0
"""Removing what a daemon left that was killed: attachments, pins, our mount."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runtime.kernel import accelerate
from runtime.kernel.bpffs import PINS, release_bpffs
from runtime.kernel.datapath import LINKS, remove_pins
from runtime.kernel.links import Links
from runtime.kernel.lock import lock_pins
from runtime.kernel.mounts import mount_of


def cleanup(pins: Path = PINS) -> list[str]:
    """Remove everything pinned below a directory.

    Args:
        pins: the directory that the daemon pinned in.

    Returns:
        what was removed, in words; nothing when there was nothing.

    Raises:
        InUseError: a process runs the data path that is pinned there.
    """
    if not pins.is_dir() or mount_of(pins).type != "bpf":
        return []
    lock = lock_pins(pins)
    removed: list[str] = []
    try:
        removed += accelerate.remove(pins)
        for home in sorted(path for path in pins.iterdir() if path.is_dir()):
            removed += _clean_path(home)
    finally:
        os.close(lock)
    if removed:
        with suppress(OSError):  # it is the mount point itself
            pins.rmdir()
        mount = release_bpffs(pins)
        removed += [f"BPF file system at {mount}"] if mount else []
    return removed


def _clean_path(home: Path) -> list[str]:
    removed = []
    if (home / LINKS).is_dir():
        for scope in Links(home / LINKS).scopes():
            removed.append(f"programs attached to {scope.cgroup}")
            scope.remove()
    remove_pins(home)
    return [*removed, f"maps of the {home.name} path"]
