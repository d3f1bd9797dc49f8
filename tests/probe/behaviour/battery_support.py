# SPDX-License-Identifier: Apache-2.0
"""What the battery's tests share: time enough, and what the kernel holds of the battery."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from runtime.bpf.lib import lib
from runtime.probe.scratch import cgroup2_mounts
from runtime.probe.verdict import Finding

# A hundredfold of what it takes: a loaded machine must not decide.
BUDGET = 20.0

RunOne = Callable[[Path, str], Finding]


class _ProgInfo(ctypes.Structure):
    """The head of struct bpf_prog_info (linux/bpf.h)."""

    _fields_ = (
        ("head", ctypes.c_uint8 * 64),
        ("name", ctypes.c_char * 16),
    )


class _MapInfo(ctypes.Structure):
    _fields_ = (("head", ctypes.c_uint8 * 24), ("name", ctypes.c_char * 16))


def _named(kind: str, info: ctypes.Structure) -> Iterator[tuple[str, int, str]]:
    number = ctypes.c_uint32(0)
    while getattr(lib(), f"bpf_{kind}_get_next_id")(number, ctypes.byref(number)) == 0:
        fd = getattr(lib(), f"bpf_{kind}_get_fd_by_id")(number)
        if fd < 0:
            continue  # gone since
        size = ctypes.c_uint32(ctypes.sizeof(info))
        lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
        os.close(fd)
        yield kind, number.value, info.name.decode()


# Programs and maps of bpf/probe; others may come and go while the tests run.
_OURS = {
    *("rewrite4", "rewrite6", "forward", "come_home", "enroll", "recall", "keep", "shortcut"),
    *("upstream", "small", "route", "respond", "services4", "services6", "enrolled", "targets"),
    *("plans", "bindings", "kernel_sockets", "outstanding", "routes"),
}


def kernel_objects() -> set[object]:
    """The battery's programs and maps that the kernel holds now: kind, id, name."""
    found = (*_named("prog", _ProgInfo()), *_named("map", _MapInfo()))
    return {item for item in found if item[2] in {name[:15] for name in _OURS}}


def places() -> set[object]:
    """The scratch cgroups that there are."""
    return {str(place) for root in cgroup2_mounts() for place in root.glob("kmesh-probe-*")}
