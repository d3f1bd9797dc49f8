# SPDX-License-Identifier: Apache-2.0
"""Pieces of a message are collected until enough are there, and arrive whole and in order."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect, expect_bytes
from runtime.probe.behaviour.sockets import Counter, Sockets

_PIECES = (60, 39, 1)  # 100 together: what the program waits for
_ROUNDS = 3


@check(
    "sockmap.cork",
    needs=("map.sockhash",),
    consequence="a request head that arrives in pieces is not collected in the kernel: it goes to"
    " the gate",
    remedy="a newer kernel; nothing else depends on it",
)
def sockmap_cork(bench: Bench) -> None:
    sockets = Sockets(bench, "answer", verdict="collect")
    client, gate = bench.pair()
    sockets.enroll(client)
    sent = pattern(_ROUNDS * sum(_PIECES))
    at = 0
    for _ in range(_ROUNDS):
        for size in _PIECES:
            client.sendall(sent[at : at + size])
            at += size
    received = bench.receive(gate, len(sent), what="collected bytes at the client's peer")
    expect_bytes("collected from pieces", sent=sent, received=received)
    expect("messages after collecting", expected=_ROUNDS, seen=sockets.count(Counter.MESSAGES))
    bench.saw(f"{_ROUNDS * len(_PIECES)} pieces became {_ROUNDS} messages, whole and in order")
