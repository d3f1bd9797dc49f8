# SPDX-License-Identifier: Apache-2.0
"""splice(2) out of an enrolled socket finds the data that recv(2) would."""

from __future__ import annotations

import os
import socket

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import check
from runtime.probe.behaviour.outcome import BrokenError
from runtime.probe.behaviour.remedy import Remedy, choose
from runtime.probe.behaviour.sockets import Sockets
from runtime.probe.behaviour.splice import splice

_SIZE = 100


@check(
    "sockmap.splice.read",
    consequence="clients that splice from their socket (Go and HAProxy as TCP relays) would stall",
    remedy="leave such clients unmanaged, or on the compat path",
)
def sockmap_splice_read(bench: Bench) -> None:
    sockets = Sockets(bench, "redirect", verdict="forward")
    if bench.ingress:
        sockets.verdict("come_home", "targets")
    remedy = choose(bench, sockets)
    client, gate = bench.pair()
    upstream, server = bench.pair()
    sockets.enroll(client)
    sockets.target(upstream, home=client)
    ways = [(gate, f"passed, remedy {remedy}")]
    if bench.ingress:
        ways.append((server, "redirected to its ingress"))
    for sender, way in ways:
        moved = _splice_from(bench, client, sender, way=way)
        bench.look(
            f"splice from an enrolled socket, {way}: {moved} of {_SIZE}", fine=moved == _SIZE
        )
        if moved != _SIZE and sender is gate:
            wrong = "no data, though it is there" if moved == 0 else f"{moved} bytes"
            because = " (with the remedy that FIONREAD needs)" if remedy != Remedy.NONE else ""
            raise BrokenError(f"splice, passed data{because}", expected=_SIZE, seen=wrong)
    bench.saw("splice from an enrolled socket finds passed data")


def _splice_from(bench: Bench, client: socket.socket, sender: socket.socket, *, way: str) -> int:
    sender.sendall(bytes(_SIZE))
    bench.wait(client, what=f"data to splice, {way}")
    reader, writer = os.pipe()
    try:
        moved = splice(client.fileno(), writer, _SIZE)
    except BlockingIOError:
        moved = 0
    finally:
        os.close(reader)
        os.close(writer)
    bench.receive(client, _SIZE - moved, what="what splice left")
    return moved
