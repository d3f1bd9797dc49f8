# SPDX-License-Identifier: Apache-2.0
"""What an enrolled socket sends leaves by another socket, whole and in order."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect, expect_bytes
from runtime.probe.behaviour.sockets import Counter, Sockets

_SIZES = (1, 3, 100, 1448, 4097, 16384)


@check(
    "sockmap.egress",
    needs=("map.sockhash",),
    consequence="requests cannot be routed in the kernel: no enhanced path",
    remedy="a kernel with CONFIG_BPF_STREAM_PARSER, 5.10 or later",
)
def sockmap_egress(bench: Bench) -> None:
    sockets = Sockets(bench, "redirect", verdict="forward")
    client, gate = bench.pair()
    upstream, server = bench.pair()
    sockets.target(upstream)
    sockets.enroll(client, to=upstream)
    for size in _SIZES:
        sent = pattern(size)
        client.sendall(sent)
        received = bench.receive(server, size, what="redirected bytes at the upstream's server")
        expect_bytes("redirected to an upstream", sent=sent, received=received)
    expect("bytes redirected", expected=sum(_SIZES), seen=sockets.count(Counter.REDIRECTED_BYTES))
    bench.saw(f"{len(_SIZES)} messages, {sum(_SIZES)} bytes, redirected whole and in order")
    sockets.aim(client)
    client.sendall(b"for the gate")
    received = bench.receive(gate, 12, what="passed bytes at the client's own peer")
    expect_bytes("passed after redirecting", sent=b"for the gate", received=received)
    bench.saw("the client's own peer got what was passed, and nothing else")
