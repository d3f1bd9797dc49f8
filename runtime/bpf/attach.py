# SPDX-License-Identifier: Apache-2.0
"""Attaching: links to cgroups, verdict programs to socket maps, and pins of both."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from runtime.bpf.lib import check, lib


class AttachType(IntEnum):
    """The members of enum bpf_attach_type (linux/bpf.h) that Kmesh attaches with."""

    CGROUP_INET_INGRESS = 0
    CGROUP_INET_EGRESS = 1
    CGROUP_INET_SOCK_CREATE = 2
    CGROUP_SOCK_OPS = 3
    SK_SKB_STREAM_PARSER = 4
    SK_SKB_STREAM_VERDICT = 5
    SK_MSG_VERDICT = 7
    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    CGROUP_UDP4_RECVMSG = 19
    CGROUP_UDP6_RECVMSG = 20
    CGROUP_INET4_GETPEERNAME = 29
    CGROUP_INET6_GETPEERNAME = 30
    CGROUP_INET_SOCK_RELEASE = 34
    SK_LOOKUP = 36
    SK_SKB_VERDICT = 38


class _NetnsLinkInfo(ctypes.Structure):
    """struct bpf_link_info (linux/bpf.h) of a link to a network namespace."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("_pad", ctypes.c_uint32),
        ("netns_ino", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Link:
    """An attachment: it lasts until its descriptor is closed and its pin is gone."""

    fd: int

    @classmethod
    def to_cgroup(cls, program_fd: int, cgroup_fd: int, attach_type: int) -> Link:
        """Attach a cgroup program (kernel 5.7 or later); others of its type keep running.

        Args:
            program_fd: a loaded program.
            cgroup_fd: an open cgroup v2 directory.
            attach_type: where in the socket's life it runs.

        Raises:
            BpfError: the kernel refused.
        """
        result = lib().bpf_link_create(program_fd, cgroup_fd, attach_type, None)
        return cls(check(result, f"cannot attach a program to a cgroup (type {attach_type})"))

    @classmethod
    def to_netns(cls, program_fd: int, netns_fd: int, attach_type: int) -> Link:
        """Attach to a network namespace (kernel 5.8 or later), which the link does not keep alive.

        Raises:
            BpfError: the kernel refused.
        """
        result = lib().bpf_link_create(program_fd, netns_fd, attach_type, None)
        return cls(check(result, f"cannot attach to a network namespace (type {attach_type})"))

    @property
    def netns(self) -> int:
        """The inode of the network namespace that this is a link to; 0 when that is gone."""
        info = _NetnsLinkInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        result = lib().bpf_obj_get_info_by_fd(self.fd, ctypes.byref(info), ctypes.byref(size))
        check(result, "cannot describe a link")
        return int(info.netns_ino)

    @classmethod
    def pinned(cls, path: Path) -> Link:
        return cls(check(lib().bpf_obj_get(os.fsencode(path)), f"cannot open the link {path}"))

    def update(self, program_fd: int) -> None:
        """Put another program in this link's place, with no moment in which none runs."""
        check(lib().bpf_link_update(self.fd, program_fd, None), "cannot replace a link's program")

    def detach(self) -> None:
        """End the attachment at once (kernel 5.9 or later); the link itself lingers, attached to nothing."""
        check(lib().bpf_link_detach(self.fd), "cannot detach a link")

    def pin(self, path: Path) -> None:
        check(lib().bpf_obj_pin(self.fd, os.fsencode(path)), f"cannot pin a link at {path}")

    def close(self) -> None:
        os.close(self.fd)


def attach_to_map(program_fd: int, map_fd: int, attach_type: int) -> None:
    """Attach a verdict program to a SOCKMAP or SOCKHASH; it goes when the map goes.

    Raises:
        BpfError: the kernel refused.
    """
    result = lib().bpf_prog_attach(program_fd, map_fd, attach_type, 0)
    check(result, f"cannot attach a program to a socket map (type {attach_type})")


def attached_to_map(map_fd: int, attach_type: int) -> int | None:
    """A descriptor of the program that a SOCKMAP or SOCKHASH gives its sockets, None for none.

    The caller closes it. Before kernel 5.18 nobody can tell, and it is None.
    """
    ids, number, flags = (ctypes.c_uint32 * 1)(), ctypes.c_uint32(1), ctypes.c_uint32()
    result = lib().bpf_prog_query(
        map_fd, attach_type, 0, ctypes.byref(flags), ids, ctypes.byref(number)
    )
    if result < 0 or not number.value:
        return None
    fd = int(lib().bpf_prog_get_fd_by_id(ids[0]))
    return fd if fd >= 0 else None


def detach_from_map(program_fd: int, map_fd: int, attach_type: int) -> None:
    """Give sockets that are put into a map from now on no such program; those in it keep theirs.

    Raises:
        BpfError: it is not attached there.
    """
    result = lib().bpf_prog_detach2(program_fd, map_fd, attach_type)
    check(result, f"cannot detach a program from a socket map (type {attach_type})")
