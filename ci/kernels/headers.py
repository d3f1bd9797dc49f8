# SPDX-License-Identifier: Apache-2.0
"""Roots as hosts have them that have a kernel's headers installed, made of Debian's packages."""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.cache import cache_dir
from ci.kernels.debian import Archive, Wanted


def newest_headers(kernel: Wanted) -> str:
    """The newest package of a kernel's headers: "linux-headers-RELEASE".

    Raises:
        KmeshError: the suite has none.
    """
    with _archive(kernel) as archive:
        return _newest(archive, kernel)


def header_root(kernel: Wanted, target: Path) -> str:
    """Unpack a kernel's header packages into a root.

    Args:
        kernel: a line of kernels.list.
        target: a directory.

    Returns:
        the kernel's release.

    Raises:
        KmeshError: the suite has no such packages.
    """
    with _archive(kernel) as archive:
        flavour = _newest(archive, kernel)
        common = re.sub(r"-cloud-[a-z0-9]+$", "-common", flavour)
        for package in (flavour, common):
            shutil.copytree(archive.unpack(package), target, symlinks=True, dirs_exist_ok=True)
    return flavour.removeprefix("linux-headers-")


@contextmanager
def _archive(kernel: Wanted) -> Iterator[Archive]:
    place = cache_dir() / "kernels"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Archive(place, kernel.suite)


def _newest(archive: Archive, kernel: Wanted) -> str:
    return archive.newest(re.sub(r"^linux-[a-z]+-", "linux-headers-", kernel.packages[0]))
