# SPDX-License-Identifier: Apache-2.0
"""Cgroups, version 2: its root on a unified or hybrid host and inside a container."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.errors import KmeshError
from runtime.kernel.mounts import mounts


class CgroupError(KmeshError):
    """A cgroup that cannot be found, or is none."""


def cgroup2_root() -> Path:
    """Where the version 2 hierarchy is mounted: /sys/fs/cgroup, or .../unified on a hybrid host.

    In a container this is the container's own cgroup, unless the host's is mounted in.

    Raises:
        CgroupError: it is not mounted.
    """
    found = [mount.point for mount in mounts() if mount.type == "cgroup2"]
    visible = [point for point in found if point.is_dir()]
    if not visible:
        raise CgroupError(
            "no cgroup2 file system is mounted",
            hint="mount it: mount -t cgroup2 none /sys/fs/cgroup/unified (in a container: mount in the host's)",
        )
    return min(visible, key=lambda point: len(point.parts))


def is_hybrid() -> bool:
    """Whether version 1 controllers are mounted too: pods are then told apart by namespace."""
    return any(mount.type == "cgroup" for mount in mounts())


def cgroup_of(pid: int) -> Path:
    """The version 2 cgroup of a process, as a directory.

    Raises:
        CgroupError: there is no such process, or its cgroup lies outside of what is mounted here.
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CgroupError(f"process {pid}: {error.strerror}") from error
    below = next((line[3:] for line in lines if line.startswith("0::")), None)
    if below is None or below.startswith("/.."):
        raise CgroupError(f"process {pid} is in no cgroup that can be seen from here")
    return cgroup2_root() / below.lstrip("/")


def cgroup_id(path: Path) -> int:
    """The number by which the kernel knows a cgroup: its directory's inode.

    Raises:
        CgroupError: the path is no cgroup of version 2.
    """
    try:
        if not (path / "cgroup.procs").is_file():
            raise CgroupError(f"{path} is no cgroup")
        return path.stat().st_ino
    except OSError as error:
        raise CgroupError(f"{path}: {error.strerror}") from error


def open_cgroup(path: Path) -> int:
    """A descriptor of a cgroup's directory, for attaching; the caller closes it.

    Raises:
        CgroupError: it is gone, or no cgroup.
    """
    cgroup_id(path)
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CgroupError(f"{path}: {error.strerror}") from error
