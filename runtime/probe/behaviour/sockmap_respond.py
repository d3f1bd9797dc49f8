# SPDX-License-Identifier: Apache-2.0
"""A request is made into an answer on its way, and goes no further than its sender."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect, expect_bytes
from runtime.probe.behaviour.remedy import choose
from runtime.probe.behaviour.sockets import Counter, Sockets

_ANSWER = b"0" * 64
_SIZES = (1, 63, 64, 65, 1448, 9000)  # shorter and longer than the answer, and over a page


@check(
    "sockmap.respond",
    uses="sockmap.ingress",
    needs=("map.sockhash",),
    consequence="answers (deny, redirect, rate limit) are not made in the kernel: the gate makes"
    " them",
    remedy="a newer kernel; nothing else depends on it",
)
def sockmap_respond(bench: Bench) -> None:
    sockets = Sockets(bench, "answer")
    choose(bench, sockets)
    sockets.verdict("answer", "enrolled")
    client, gate = bench.pair()
    sockets.enroll(client, to=client)
    for size in _SIZES:
        client.sendall(pattern(size))
        received = bench.receive(client, len(_ANSWER), what=f"the answer to {size} bytes")
        expect_bytes(f"the answer to {size} bytes", sent=_ANSWER, received=received)
    expect("answers made", expected=len(_SIZES), seen=sockets.count(Counter.RETURNED))
    bench.saw(f"{len(_SIZES)} requests, of 1 to {max(_SIZES)} bytes, answered in the kernel")
    sockets.aim(client)
    client.sendall(b"for the gate")
    received = bench.receive(gate, 12, what="passed bytes at the client's own peer")
    expect_bytes("what the client's peer got", sent=b"for the gate", received=received)
    bench.saw("the client's own peer got what was passed, and nothing of what was answered")
