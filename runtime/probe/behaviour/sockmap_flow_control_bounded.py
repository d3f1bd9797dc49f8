# SPDX-License-Identifier: Apache-2.0
"""Without a look into the kernel: only small messages, only onto sockets with nothing outstanding."""

from __future__ import annotations

import socket
import struct

from runtime.probe.behaviour.bench import Bench, cookie, pattern
from runtime.probe.behaviour.check import check, expect, expect_bytes
from runtime.probe.behaviour.flow_control import BUFFER, CHUNK
from runtime.probe.behaviour.sockets import Counter, Sockets


@check(
    "sockmap.flow_control.bounded",
    consequence="without BTF nothing can be redirected safely: no enhanced path",
    remedy="see sockmap.egress",
)
def sockmap_flow_control_bounded(bench: Bench) -> None:
    sockets = Sockets(bench, "bounded", verdict="small")
    client, gate = bench.pair(buffer=BUFFER)
    upstream, server = bench.pair(buffer=BUFFER)
    sockets.target(upstream)
    sockets.enroll(client, to=upstream)
    _exchange(bench, client, server, size=CHUNK, what="a small message")
    _exchange(bench, client, gate, size=100, what="a second with one outstanding")
    server.sendall(b"answer")
    bench.receive(upstream, 6, what="the answer")
    sockets.maps["outstanding"].delete(struct.pack("=Q", cookie(upstream)))
    _exchange(bench, client, gate, size=CHUNK + 1, what="one that is not small")
    _exchange(bench, client, server, size=100, what="a small one after the answer")
    seen = sockets.count(Counter.REDIRECTED)
    expect("messages redirected", expected=2, seen=seen)
    bench.saw("small messages onto a free socket were redirected; all else reached the gate")


def _exchange(
    bench: Bench,
    client: socket.socket,
    receiver: socket.socket,
    *,
    size: int,
    what: str,
) -> None:
    sent = pattern(size)
    client.sendall(sent)
    expect_bytes(what, sent=sent, received=bench.receive(receiver, size, what=what))
