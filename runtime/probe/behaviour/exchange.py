# SPDX-License-Identifier: Apache-2.0
"""The whole path in small: a service address, a gate, two upstreams, and clients enrolled by sockops."""

from __future__ import annotations

import socket
import struct

from runtime.probe.behaviour.bench import Bench, cookie
from runtime.probe.behaviour.remedy import Remedy, choose
from runtime.probe.behaviour.sockets import Sockets

SERVICE = ("192.0.2.80", 80)
_GATE_PORT = 0


class Exchange:
    """An HTTP service whose clients are routed request by request.

    Args:
        bench: where it stands.
        home: answers go into the client's receive queue; without, by the gate.
    """

    def __init__(self, bench: Bench, *, home: bool = False) -> None:
        self.bench = bench
        self.sockets = Sockets(bench, "http", verdict="route")
        self.remedy: Remedy = choose(bench, self.sockets)
        if home:
            self.sockets.verdict("respond", "targets")
        self.gate = bench.listener()
        self._route(_GATE_PORT, self.gate.getsockname()[1])
        self.upstreams: dict[bytes, socket.socket] = {}
        self.servers: dict[bytes, socket.socket] = {}
        for letter in (b"a", b"b"):
            self._upstream(letter)
        self._rewrite()
        bench.attach(self.sockets.object, "enroll")

    def _route(self, key: int, value: int) -> None:
        self.sockets.maps["routes"].update(struct.pack("=I", key), struct.pack("=Q", value))

    def _upstream(self, letter: bytes) -> None:
        upstream, server = self.bench.pair()
        self.sockets.target(upstream)
        self._route(letter[0], cookie(upstream))
        self.upstreams[letter], self.servers[letter] = upstream, server

    def _rewrite(self) -> None:
        """Let the service's address lead to the gate, as on the compat path."""
        connect = self.bench.load("connect", only=("rewrite4",))
        places = [
            socket.inet_aton(host) + struct.pack("!H2x", port)
            for host, port in (SERVICE, self.gate.getsockname())
        ]
        connect.maps()["services4"].update(*places)
        self.bench.attach(connect, "rewrite4")

    def client(self) -> tuple[socket.socket, socket.socket]:
        """A client connected to the service, and the gate's end of its connection."""
        client = self.bench.connect(SERVICE)
        return client, self.bench.accept(self.gate)
