# SPDX-License-Identifier: Apache-2.0
"""The maps of bpf/probe/socket.h from user space: who is enrolled, and where its data goes."""

from __future__ import annotations

import socket
import struct
from enum import IntEnum

from runtime.bpf.objects import BpfObject
from runtime.probe.behaviour.bench import Bench, cookie

_PLAN = struct.Struct("=QQIIII")  # struct plan
_WAY_INGRESS = 1
_COOKIE = struct.Struct("=Q")
_FD = struct.Struct("=i")


class Counter(IntEnum):
    """enum counter."""

    ESTABLISHED = 0
    CLOSED = 1
    MESSAGES = 2
    REDIRECTED = 3
    REDIRECTED_BYTES = 4
    PASSED = 5
    RETURNED = 6


class Sockets:
    """A loaded object that includes socket.h.

    Args:
        bench: where it is used.
        name: the object.
        verdict: the sk_msg program that enrolled sockets get, or None.
    """

    def __init__(self, bench: Bench, name: str, *, verdict: str | None = None) -> None:
        self.bench = bench
        self.object: BpfObject = bench.load(name)
        self.maps = self.object.maps()
        if verdict:
            self.verdict(verdict, "enrolled")

    def verdict(self, program: str, name: str) -> None:
        """Attach a verdict program to one of the socket hashes."""
        self.bench.attach_to_map(self.object, program, name)

    def enroll(
        self, sock: socket.socket, *, to: socket.socket | None = None, ingress: bool = False
    ) -> None:
        """Put a socket among the enrolled, with a plan for what it sends."""
        self._put("enrolled", sock)
        self.aim(sock, to=to, ingress=ingress)

    def aim(
        self,
        sock: socket.socket,
        *,
        to: socket.socket | None = None,
        ingress: bool = False,
        held: bool = False,
    ) -> None:
        """Change the plan of a socket; `held` as if something had been passed before."""
        target = cookie(to) if to else 0
        plan = _PLAN.pack(cookie(sock), target, _WAY_INGRESS if ingress else 0, held, 0, 0)
        self.maps["plans"].update(_FD.pack(sock.fileno()), plan)

    def target(self, sock: socket.socket, *, home: socket.socket | None = None) -> None:
        """Put a socket among the targets; what it receives may be bound to go home elsewhere."""
        if home:
            self.maps["bindings"].update(_COOKIE.pack(cookie(sock)), _COOKIE.pack(cookie(home)))
        self._put("targets", sock)

    def replace(self, sock: socket.socket, *, by: socket.socket) -> None:
        """Put another socket in the place of a target."""
        self.maps["targets"].update(_COOKIE.pack(cookie(sock)), _COOKIE.pack(by.fileno()))

    def _put(self, name: str, sock: socket.socket) -> None:
        self.maps[name].update(_COOKIE.pack(cookie(sock)), _COOKIE.pack(sock.fileno()))

    def enrolled(self) -> set[int]:
        """The cookies of the sockets that are enrolled now."""
        return {_COOKIE.unpack(key)[0] for key in self.maps["enrolled"].keys()}  # noqa: SIM118

    def kept(self, sock: socket.socket) -> int | None:
        """The cookie that a socket carries in its storage."""
        plan = self.maps["plans"].lookup(_FD.pack(sock.fileno()))
        return int(_PLAN.unpack(plan)[0]) if plan else None

    def count(self, which: Counter) -> int:
        value = self.maps["counters"].lookup(struct.pack("=I", which))
        return int(_COOKIE.unpack(value or bytes(8))[0])
