# SPDX-License-Identifier: Apache-2.0
"""System calls that Python has no words for yet: mount namespaces, mounts, capabilities."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from runtime.probe.host import CAPABILITIES

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def own_mounts() -> None:
    """Have mounts of one's own from now on: what is changed is changed for this process alone."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
    )
    _check(result, f"mount {kind or source} at {target}")


def mount(kind: str, target: str, *, data: str = "") -> None:
    """Mount a file system without a device; the directory is made where it is not there."""
    Path(target).mkdir(parents=True, exist_ok=True)
    _mount(kind, target, kind, data=data)


def unmount(target: str) -> None:
    _check(_libc.umount2(target.encode(), _MNT_DETACH), f"umount {target}")


def read_only(target: str) -> None:
    """Make a mount read-only, for this mount namespace."""
    _mount("none", target, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def drop(names: Iterable[str]) -> None:
    """Give capabilities up, for this process and all that it starts."""
    numbers = [CAPABILITIES.index(name) for name in names]
    for number in numbers:
        _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), f"drop capability {number}")
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    held = ctypes.create_string_buffer(24)  # effective, permitted, inheritable, twice 32 bits each
    _check(_libc.capget(header, held), "capget")
    words = list(struct.unpack("=6I", held.raw))
    for number in numbers:
        for set_ in range(3):
            words[3 * (number // 32) + set_] &= ~(1 << number % 32)
    _check(_libc.capset(header, struct.pack("=6I", *words)), "capset")
