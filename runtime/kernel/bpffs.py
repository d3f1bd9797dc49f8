# SPDX-License-Identifier: Apache-2.0
"""The BPF file system, in which pins live: found, or mounted where it is missing."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from runtime.errors import KmeshError
from runtime.kernel.mounts import Mount, mount_of

USUAL = Path("/sys/fs/bpf")
PINS = USUAL / "kmesh"
# A link in it tells our own mount from the distribution's, when cleaning up. The mount's source
# would, but the BPF file system of 5.10 forgets it.
_MARK = "kmesh-mounted"  # no dots: the file system keeps them for itself


class BpffsError(KmeshError):
    """There is no BPF file system and none can be mounted."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(point: Path) -> None:
    arguments = (b"kmesh", os.fsencode(point), b"bpf", 0, b"mode=0700")
    if _libc().mount(*arguments) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise BpffsError(
            f"no BPF file system at {point}, and it cannot be mounted: {reason}",
            hint=f"mount it on the host: mount -t bpf bpf {point} (in a container: mount it in)",
        )
    (point / _MARK).symlink_to("kmesh")


def ensure_bpffs(pins: Path) -> None:
    """Make a directory for pins, with a BPF file system under it.

    Args:
        pins: the directory. Below /sys/fs/bpf the file system is mounted there, as distributions
            do; elsewhere on the directory itself.

    Raises:
        BpffsError: it is not mounted and this process may not mount it.
    """
    if mount_of(pins).type != "bpf":
        point = USUAL if pins.is_relative_to(USUAL) else pins
        if not point.is_dir():
            _make(point)
        _mount(point)
    _make(pins)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BpffsError(
            f"cannot make the directory {directory} for pins: {error.strerror}"
        ) from error


def _is_ours(mount: Mount) -> bool:
    return mount.type == "bpf" and (mount.point / _MARK).is_symlink()


def release_bpffs(pins: Path) -> Path | None:
    """Unmount the file system that `ensure_bpffs` mounted, once nothing is pinned in it.

    Returns:
        where it was, or None when it is not ours or still in use.
    """
    mount = mount_of(pins)
    left_over = {"maps.debug", "progs.debug", _MARK}  # the kernel's own, and ours
    if not _is_ours(mount) or {path.name for path in mount.point.iterdir()} - left_over:
        return None
    (mount.point / _MARK).unlink()
    if _libc().umount2(os.fsencode(mount.point), 0) != 0:
        (mount.point / _MARK).symlink_to("kmesh")
        return None
    return mount.point
