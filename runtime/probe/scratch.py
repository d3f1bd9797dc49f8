# SPDX-License-Identifier: Apache-2.0
"""The scratch cgroup and network namespace, made and removed. For processes forked for the purpose."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import signal
import socket
import struct
import time
from pathlib import Path

from runtime.errors import KmeshError

_CLONE_NEWNS = 0x00020000
_CLONE_NEWCGROUP = 0x02000000
_CLONE_NEWNET = 0x40000000
_CGROUP2 = b"cgroup2"
_MS_PRIVATE_REC = (1 << 18) | (1 << 14)
_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_IFREQ = "16sH14x"
_NAME = re.compile(r"kmesh-probe-(\d+)-(\d+)")


class SetupError(KmeshError):
    """The scratch place could not be made.

    Attributes:
        errno: the kernel's reason.
    """

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what}: {os.strerror(code)}")
        self.errno = code


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the parent ends; it may have ended already."""
    _libc().prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], int(fields[19])
    return None if state in "ZX" else started


def cgroup2_mounts() -> list[Path]:
    """Where cgroup v2 is mounted, in the order of the mounts (proc(5), mountinfo)."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            found.append(Path(fields[4].encode().decode("unicode_escape")))
    return found


def make(owner: int) -> Path:
    """Enter a fresh network namespace and make the owner's scratch cgroup.

    Args:
        owner: the pid that the cgroup is named after; when it is dead others may remove it.

    Returns:
        the cgroup's directory, as this process sees it.

    Raises:
        SetupError: a privilege is missing, or the kernel lacks what it takes.
    """
    _unshare(_CLONE_NEWNET, "cannot make a network namespace")
    _raise_loopback()
    name = f"kmesh-probe-{owner}-{start_time(owner)}"
    for mount in cgroup2_mounts():
        with contextlib.suppress(OSError):
            return _make_in(mount, name)
    return _make_in_private_mount(name)


def _unshare(flags: int, what: str) -> None:
    if _libc().unshare(flags):
        raise SetupError(what, ctypes.get_errno())


def _raise_loopback() -> None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            request = struct.pack(_IFREQ, b"lo", 0)
            answer = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
            flags = struct.unpack(_IFREQ, answer)[1] | _IFF_UP
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", flags))
    except OSError as error:
        what = "cannot raise the loopback of a network namespace"
        raise SetupError(what, error.errno or errno.EIO) from error


def _make_in(root: Path, name: str) -> Path:
    remove_leftovers(root)
    place = root / name
    place.mkdir(exist_ok=True)
    return place


def _make_in_private_mount(name: str) -> Path:
    """Where cgroup v2 is not mounted, or not for writing: mount it for this process alone.

    In a cgroup namespace of its own, as a mount from the first one sets the options of the whole
    hierarchy (cgroup_get_tree, apply_cgroup_root_flags).
    """
    _unshare(_CLONE_NEWNS | _CLONE_NEWCGROUP, "cannot make a mount namespace for a private cgroup2")
    # Not at /sys/fs/cgroup: the same cgroup2 cannot be mounted over itself.
    root = next(path for path in (Path("/sys/fs"), Path("/mnt"), Path("/tmp")) if path.is_dir())  # noqa: S108
    for source, kind, flags in ((b"none", b"none", _MS_PRIVATE_REC), (_CGROUP2, _CGROUP2, 0)):
        target = b"/" if flags else os.fsencode(root)
        if _libc().mount(source, target, kind, ctypes.c_ulong(flags), None):
            raise SetupError("cannot mount a private cgroup2", ctypes.get_errno())
    try:
        return _make_in(root, name)
    except OSError as error:
        raise SetupError("cannot make a scratch cgroup", error.errno or errno.EIO) from error


def enter(cgroup: Path) -> None:
    """Make a cgroup and move this process into it.

    Raises:
        SetupError: the kernel refused.
    """
    try:
        # Another probe, in another pid namespace, may take an empty cgroup of ours for a dead one's.
        cgroup.mkdir(exist_ok=True, parents=True)
        (cgroup / "cgroup.procs").write_text("0")
    except OSError as error:
        raise SetupError("cannot enter a scratch cgroup", error.errno or errno.EIO) from error


def remove(place: Path, *, patience: float) -> None:
    """Remove a cgroup and those below it; a process that is just ending holds it a moment longer."""
    deadline = time.monotonic() + patience
    while place.is_dir():
        with contextlib.suppress(OSError):
            for below in place.iterdir():
                if below.is_dir():
                    below.rmdir()
            place.rmdir()
        if time.monotonic() >= deadline:
            return
        if place.is_dir():
            time.sleep(0.001)


def remove_leftovers(root: Path) -> list[str]:
    """Remove scratch cgroups whose owner is dead and in which nothing runs.

    Args:
        root: a mounted cgroup v2.

    Returns:
        the names of those removed.
    """
    gone = []
    for place in root.glob("kmesh-probe-*"):
        name = _NAME.fullmatch(place.name)
        if not name or start_time(int(name[1])) == int(name[2]):
            continue
        remove(place, patience=0)
        if not place.exists():
            gone.append(place.name)
    return gone
