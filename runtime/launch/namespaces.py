# SPDX-License-Identifier: Apache-2.0
"""The network namespaces that managed processes are in, and those that are managed as such."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from runtime.control.rundir import Namespace
from runtime.errors import KmeshError
from runtime.launch.scope import everyone

CookieOf = Callable[[Path], int]

OWN = Path("/proc/self/ns/net")
_MOUNTED = Path("/run/netns")  # where iproute2 and CNI plugins keep them


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


def find(told: str, *, cookie_of: CookieOf) -> Namespace:
    """A network namespace by what somebody calls it.

    Args:
        told: a path that leads to it (/proc/PID/ns/net, or a bind mount of that), or its cookie.
        cookie_of: asks the kernel for a namespace's cookie.

    Raises:
        KmeshError: no network namespace is there.
    """
    if told.isdecimal():
        return locate(Namespace(int(told)), cookie_of=cookie_of)
    try:
        return Namespace(cookie_of(Path(told)), Path(told).stat().st_ino, told)
    except OSError as error:
        raise KmeshError(f"there is no network namespace {told}: {error.strerror}") from error


def locate(known: Namespace, *, cookie_of: CookieOf) -> Namespace:
    """The same namespace with a path that leads there now; without one where none is to be found."""
    for inode, path in by_inode((Path(known.path or "/nowhere"), *_everywhere())).items():
        if known.inode not in (0, inode):
            continue
        with suppress(KmeshError, OSError):  # it went, or is no namespace after all
            if cookie_of(path) == known.cookie:
                return Namespace(known.cookie, inode, str(path), known.holders)
    return Namespace(known.cookie, holders=known.holders)


def leads_there(known: Namespace) -> bool:
    """Whether its path still does."""
    with suppress(OSError):
        return known.path != "" and Path(known.path).stat().st_ino == known.inode
    return False


def _everywhere() -> Iterator[Path]:
    mounted = _MOUNTED.iterdir() if _MOUNTED.is_dir() else ()
    return chain(mounted, Path("/proc").glob("[0-9]*/ns/net"))
