# SPDX-License-Identifier: Apache-2.0
"""Answers that go home within the kernel, in small: a client with its gate, an upstream with its server."""

from __future__ import annotations

import struct

from runtime.probe.behaviour.bench import Bench, cookie
from runtime.probe.behaviour.remedy import choose
from runtime.probe.behaviour.sockets import Sockets

_STREAM = struct.Struct("=IIII")  # struct stream
FOR_GATE = b"G"  # what begins with it is passed


class Homes:
    """The loaded programs (bpf/probe/home.bpf.c), attached as the enhanced path has them.

    Args:
        bench: where they are used.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.sockets = Sockets(bench, "home", verdict="forward")
        self.sockets.verdict("come_home_in_order", "targets")
        choose(bench, self.sockets)
        self.sockets.verdict(
            "noop", "enrolled"
        )  # remedy or not: for the order (runtime/kernel/home.py)


class Home:
    """One client and its gate, one upstream and its server, whose answers go home.

    Args:
        homes: the programs.
        buffer: bytes of each socket's buffers; None for what the kernel gives.
    """

    def __init__(self, homes: Homes, *, buffer: int | None = None) -> None:
        self._maps = homes.sockets.maps
        self.client, self.gate = homes.bench.pair(buffer=buffer)
        self.upstream, self.server = homes.bench.pair(buffer=buffer)
        self._key = struct.pack("=Q", cookie(self.upstream))
        self._maps["streams"].update(self._key, bytes(_STREAM.size))
        homes.sockets.enroll(self.client)
        homes.sockets.target(self.upstream, home=self.client)

    def unbind(self) -> None:
        """Have all that reaches the upstream passed from now on."""
        self._maps["bindings"].delete(self._key)

    def broken(self) -> int:
        """How many segments did not begin where the one before ended."""
        found = self._maps["streams"].lookup(self._key) or bytes(_STREAM.size)
        return int(_STREAM.unpack(found)[2])
