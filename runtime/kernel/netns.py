# SPDX-License-Identifier: Apache-2.0
"""Network namespaces by cookie: a number that the kernel never gives twice."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runtime.bpf.attach import Link
from runtime.bpf.objects import BpfObject
from runtime.errors import KmeshError
from runtime.kernel.cgroup import cgroup2_root, open_cgroup

_SO_COOKIE = 57
_SO_NETNS_COOKIE = 71  # since 5.14, e8b9eab99232 ("net: retrieve netns cookie via getsocketopt")
_CLONE_NEWNET = 0x40000000
_PROGRAM = Path("probe/cookie.bpf.o")


class NetnsError(KmeshError):
    """A network namespace that cannot be entered or has no cookie."""


def _number(probe: socket.socket, option: int) -> int:
    raw = probe.getsockopt(socket.SOL_SOCKET, option, 8)
    return int(struct.unpack("=Q", raw)[0])


def _ask_kernel() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return _number(probe, _SO_NETNS_COOKIE)


def _ask_program(objects: Path) -> int:
    """For older kernels: a program at the root cgroup, for as long as one socket connects."""
    with (
        BpfObject(objects / _PROGRAM) as opened,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        opened.load()
        asked, program = opened.maps()["asked"], opened.programs()["tell_cookie"]
        key = struct.pack("=Q", _number(probe, _SO_COOKIE))
        asked.update(key, bytes(8))
        root = open_cgroup(cgroup2_root())
        link = Link.to_cgroup(program.fd, root, program.attach_type)
        os.close(root)
        try:
            probe.connect_ex(("127.0.0.1", 9))  # a datagram socket: nothing is sent
        finally:
            link.close()
        return int(struct.unpack("=Q", asked.lookup(key) or bytes(8))[0])


def open_netns(path: Path) -> int:
    """A descriptor of a network namespace; the caller closes it.

    Raises:
        NetnsError: there is none at that path.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetnsError(f"cannot open the network namespace {path}: {error.strerror}") from error


def enter_netns(handle: int) -> None:
    """Take this thread into a network namespace, for good.

    Raises:
        OSError: it is none, or entering it is not allowed.
    """
    if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def enter_netns_at(path: Path) -> None:
    """The same by its path.

    Raises:
        OSError: there is none, or entering it is not allowed.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter_netns(handle)
    finally:
        os.close(handle)


def _inside(path: Path, ask: Callable[[], int]) -> int:
    """Runs in a thread of its own, which stays in that namespace."""
    enter_netns_at(path)
    return ask()


def _ask(path: Path | None, ask: Callable[[], int]) -> int:
    if path is None:
        return ask()
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(_inside, path, ask).result()


def netns_cookie(path: Path | None = None, *, objects: Path | None = None) -> int:
    """The cookie of a network namespace.

    Args:
        path: /proc/PID/ns/net or a bind mount of one; None for this process's own.
        objects: the compiled objects, with which kernels before 5.14 can be asked too.

    Raises:
        NetnsError: it cannot be entered, or the kernel is older than 5.14 and there are no objects.
        CgroupError: an older kernel, and no cgroup2 hierarchy is mounted.
        BpfError: an older kernel refused the program that tells.
    """
    try:
        return _ask(path, _ask_kernel)
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT and objects is not None:
            return _ask(path, lambda: _ask_program(objects))
        raise NetnsError(
            f"no cookie of network namespace {path or 'of this process'}: {error.strerror}",
            hint="it takes root, and kernel 5.14 or the compiled objects",
        ) from error
