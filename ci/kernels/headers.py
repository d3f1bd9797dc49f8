# SPDX-License-Identifier: Apache-2.0
"""Roots as hosts have them that have a kernel's headers installed, made of Debian's packages."""

from __future__ import annotations

import fcntl
import re
import shutil
from pathlib import Path

from builder.cache import cache_dir
from ci.kernels.debian import Archive, Wanted


def header_root(kernel: Wanted, target: Path) -> str:
    """Unpack a kernel's header packages, and the distribution's os-release, into a root.

    Args:
        kernel: a line of kernels.list.
        target: an empty directory.

    Returns:
        the kernel's release.

    Raises:
        KmeshError: the suite has no such packages.
    """
    place = cache_dir() / "kernels"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        archive = Archive(place, kernel.suite)
        pattern = re.sub(r"^linux-[a-z]+-", "linux-headers-", kernel.packages[0])
        flavour = archive.newest(pattern)
        common = re.sub(r"-cloud-[a-z0-9]+$", "-common", flavour)
        for package in (flavour, common):
            shutil.copytree(archive.unpack(package), target, symlinks=True, dirs_exist_ok=True)
    return flavour.removeprefix("linux-headers-")
