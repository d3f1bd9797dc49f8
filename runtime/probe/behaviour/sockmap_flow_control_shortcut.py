# SPDX-License-Identifier: Apache-2.0
"""Looking at the reader's queue: a slow reader holds its sender back, bytes stay whole and in order."""

from __future__ import annotations

import socket

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect_bytes
from runtime.probe.behaviour.flow_control import BUFFER, TOO_MUCH, available, push
from runtime.probe.behaviour.outcome import BrokenError
from runtime.probe.behaviour.sockets import Counter, Sockets


@check(
    "sockmap.flow_control.shortcut",
    uses="sockmap.ingress",
    needs=("btf",),
    consequence="connections within the node go over TCP, not past it",
    remedy="a kernel with BTF (CONFIG_DEBUG_INFO_BTF) and CAP_PERFMON, not locked down",
)
def sockmap_flow_control_shortcut(bench: Bench) -> None:
    sockets = Sockets(bench, "flow", verdict="shortcut")
    bench.attach(sockets.object, "keep")
    sender, reader = bench.pair(buffer=BUFFER)
    sockets.target(reader)
    sockets.enroll(sender)
    _not_overtaken(bench, sockets, sender, reader)
    sockets.aim(sender, to=reader, ingress=True)
    data = pattern(TOO_MUCH)
    taken = push(sender, data)
    if taken >= TOO_MUCH:
        seen = f"all of {TOO_MUCH} bytes accepted"
        raise BrokenError("sending to a reader that sleeps", expected="to be held back", seen=seen)
    bench.saw(f"a reader that slept held its sender back after {taken} bytes")
    received = _pump(bench, sender, reader, data, taken=taken)
    expect_bytes("short-cut and TCP in turn", sent=data, received=received)
    bench.saw(f"{len(data)} bytes arrived in order, short-cut and over TCP in turn")
    _short_cut_again(bench, sockets, sender, reader)


def _not_overtaken(
    bench: Bench, sockets: Sockets, sender: socket.socket, reader: socket.socket
) -> None:
    """What TCP has not sent yet goes first: a cork keeps it in the sender's queue, unseen there."""
    sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    sender.sendall(b"first, ")
    sockets.aim(sender, to=reader, ingress=True, held=True)
    sender.sendall(b"second")
    sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    received = bench.receive(reader, 13, what="two messages, the first of them over TCP")
    expect_bytes(
        "two messages, the first of them over TCP", sent=b"first, second", received=received
    )
    bench.saw("what TCP had not sent yet was not overtaken")


def _pump(
    bench: Bench, sender: socket.socket, reader: socket.socket, data: bytes, *, taken: int
) -> bytes:
    """Read and send in turn until everything was sent and read."""
    received = bytearray()
    while len(received) < len(data):
        bench.wait(reader, what=f"the rest of a stream ({len(received)} of {len(data)} bytes)")
        received += available(reader)
        taken += push(sender, data[taken:])
    return bytes(received)


def _short_cut_again(
    bench: Bench, sockets: Sockets, sender: socket.socket, reader: socket.socket
) -> None:
    """Once TCP's queues are empty the short cut is taken again: acknowledgements may come late."""

    def taken() -> bool:
        before = sockets.count(Counter.REDIRECTED)
        sender.sendall(b"again")
        bench.receive(reader, 5, what="a message after a stream")
        # An acknowledgement at once, so that the sender's queue is seen empty.
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return sockets.count(Counter.REDIRECTED) > before

    bench.until(taken, what="the short cut to be taken again")
    bench.saw("with TCP's queues empty the short cut was taken again")
