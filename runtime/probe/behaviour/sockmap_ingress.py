# SPDX-License-Identifier: Apache-2.0
"""Data goes straight into another socket's receive queue, from a sender and from a receiver."""

from __future__ import annotations

import socket

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect_bytes
from runtime.probe.behaviour.sockets import Sockets

_SIZES = (1, 3, 100, 1448, 4097, 16384)


@check(
    "sockmap.ingress",
    needs=("map.sockhash",),
    consequence="answers go home by the gate; sockets of one node are not short-cut",
    remedy="a kernel with CONFIG_BPF_STREAM_PARSER, 5.10 or later",
)
def sockmap_ingress(bench: Bench) -> None:
    sockets = Sockets(bench, "redirect", verdict="forward")
    sockets.verdict("come_home", "targets")
    _from_a_sender(bench, sockets)
    _from_a_receiver(bench, sockets)


def _compare(bench: Bench, sender: socket.socket, receiver: socket.socket, *, way: str) -> None:
    for size in _SIZES:
        sent = pattern(size)
        sender.sendall(sent)
        received = bench.receive(receiver, size, what=f"bytes {way}")
        expect_bytes(way, sent=sent, received=received)
    bench.saw(f"{len(_SIZES)} messages, {sum(_SIZES)} bytes, {way} whole and in order")


def _from_a_sender(bench: Bench, sockets: Sockets) -> None:
    client, _gate = bench.pair()
    reader, _peer = bench.pair()
    sockets.target(reader)
    sockets.enroll(client, to=reader, ingress=True)
    _compare(bench, client, reader, way="from a sender into a receive queue")


def _from_a_receiver(bench: Bench, sockets: Sockets) -> None:
    client, _gate = bench.pair()
    upstream, server = bench.pair()
    sockets.enroll(client)
    sockets.target(upstream, home=client)
    _compare(bench, server, client, way="from an upstream into the client's receive queue")
