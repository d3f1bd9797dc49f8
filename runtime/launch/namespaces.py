# SPDX-License-Identifier: Apache-2.0
"""The network namespaces that managed processes are in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from runtime.launch.scope import everyone

OWN = Path("/proc/self/ns/net")


def of_cgroups(cgroups: Iterable[str]) -> list[Path]:
    """The network namespaces of some cgroups' processes, and this process's own, each once.

    The kernel governs whoever is below an enrolled cgroup, so those below count too: a container's
    runtime gives each container a cgroup of its own within its pod's.
    """
    members = (Path(f"/proc/{pid}/ns/net") for name in cgroups for pid in everyone(Path(name)))
    return list(by_inode((OWN, *members)).values())


def by_inode(paths: Iterable[Path]) -> dict[int, Path]:
    """Each namespace once, by its inode; what has just gone is left out."""
    found: dict[int, Path] = {}
    for path in paths:
        with suppress(OSError):
            found.setdefault(path.stat().st_ino, path)
    return found
