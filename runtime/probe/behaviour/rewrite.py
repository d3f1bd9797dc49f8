# SPDX-License-Identifier: Apache-2.0
"""What the two connect checks share: a service address, an endpoint, and bytes both ways."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import expect, expect_bytes
from runtime.probe.behaviour.outcome import BrokenError

_PORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """An address family's own: its addresses, program and table."""

    family: socket.AddressFamily
    service: str
    endpoint: str
    program: str
    table: str

    def place(self, address: str, port: int) -> bytes:
        """As struct place4 or place6: address and port in network order, the port in a u32."""
        return socket.inet_pton(self.family, address) + struct.pack("!H2x", port)


def check_rewriting(bench: Bench, rewrite: Rewrite) -> None:
    """Connect to the service, exchange bytes with the endpoint, and see it end with the link."""
    listener = bench.listener(rewrite.family)
    endpoint = rewrite.place(rewrite.endpoint, listener.getsockname()[1])
    loaded = bench.load("connect", only=(rewrite.program,))
    loaded.maps()[rewrite.table].update(rewrite.place(rewrite.service, _PORT), endpoint)
    bench.attach(loaded, rewrite.program)
    _exchange(bench, _reach(bench, rewrite), listener)
    bench.saw(f"a connection to {rewrite.service} reached an endpoint on {rewrite.endpoint}")
    direct = bench.connect((rewrite.endpoint, listener.getsockname()[1]))
    _exchange(bench, direct, listener)
    bench.saw("a connection to no service was left alone")
    bench.detach()
    _expect_unreachable(bench, rewrite)


def _reach(bench: Bench, rewrite: Rewrite) -> socket.socket:
    try:
        return bench.connect((rewrite.service, _PORT))
    except OSError as error:
        seen = error.strerror or str(error)
        expected = f"a connection to an endpoint on {rewrite.endpoint}"
        raise BrokenError(f"connect to {rewrite.service}", expected=expected, seen=seen) from error


def _exchange(bench: Bench, client: socket.socket, listener: socket.socket) -> None:
    server = bench.accept(listener)
    expect("the endpoint's peer", expected=client.getsockname(), seen=server.getpeername())
    for sender, receiver in ((client, server), (server, client)):
        sent = pattern(1000)
        sender.sendall(sent)
        received = bench.receive(receiver, len(sent), what="bytes through a rewritten connection")
        expect_bytes("through a rewritten connection", sent=sent, received=received)


def _expect_unreachable(bench: Bench, rewrite: Rewrite) -> None:
    try:
        bench.connect((rewrite.service, _PORT))
    except OSError:
        bench.saw("with the link closed the service address is an address like any other")
        return
    raise BrokenError("after the link was closed", expected="no connection", seen="a connection")
