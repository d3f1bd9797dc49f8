# SPDX-License-Identifier: Apache-2.0
"""A cgroup to attach to in which no process lives, for as long as an object is tried.

Its directory is locked while it is in use. What a killed prober left is not locked, and the next
one removes it: a process id would not do, as it means different processes in different containers.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "kmesh-load-"


@contextmanager
def load_cgroup(mount: Path) -> Iterator[int]:
    """Make a cgroup with nothing in it, and remove it at the end.

    Args:
        mount: where cgroup2 is mounted.

    Yields:
        a descriptor of its directory.

    Raises:
        OSError: it cannot be made (read-only, or not allowed).
    """
    remove_leftovers(mount)
    path, descriptor = _make(mount)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        with suppress(OSError):
            path.rmdir()


def _make(mount: Path) -> tuple[Path, int]:
    """Make one and lock it. Until it is locked, another prober may take it for a leftover."""
    while True:
        path = mount / f"{PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        path.mkdir()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                return path, descriptor
        os.close(descriptor)


def remove_leftovers(mount: Path) -> list[str]:
    """Remove such cgroups whose prober is gone, and return their names."""
    return [path.name for path in mount.glob(f"{PREFIX}*") if _remove_unlocked(path)]


def _remove_unlocked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.rmdir()
    except OSError:  # in use, or gone, or not ours to remove
        return False
    else:
        return True
    finally:
        os.close(descriptor)
