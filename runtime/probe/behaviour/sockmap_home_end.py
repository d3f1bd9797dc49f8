# SPDX-License-Identifier: Apache-2.0
"""The end of a client's connection comes behind the answer that was redirected to it before."""

from __future__ import annotations

import socket
from contextlib import suppress

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect_bytes
from runtime.probe.behaviour.flow_control import BUFFER
from runtime.probe.behaviour.home import Home, Homes

_PART, _PARTS = 16384, 4
_TRIES = 16


@check(
    "sockmap.home.end",
    uses="sockmap.ingress",
    needs=("map.sockhash",),
    consequence="an answer is cut short when its connection is ended right behind it",
    remedy="answers by the gate, which ends a connection by TCP behind what it sent",
)
def sockmap_home_end(bench: Bench) -> None:
    """The end of a client's connection comes behind the answer that was redirected to it before.

    Redirected data waits for a worker of the kernel, and the end does not. More of it than the
    client's buffer holds: some still waits when the end comes, and whoever then reads faster than
    the worker delivers sees the end first. A slow host may lose that race: one try tells nothing.
    """
    homes = Homes(bench)
    for _ in range(_TRIES):
        _answer_and_end(bench, Home(homes, buffer=BUFFER))
    bench.saw(f"{_TRIES} times the end of a connection came behind what was redirected before it")


def _answer_and_end(bench: Bench, home: Home) -> None:
    parts = [b"C" + pattern(_PART - 1, start=_PART * number) for number in range(_PARTS)]
    for part in parts:
        home.server.sendall(part)
    home.gate.shutdown(socket.SHUT_WR)
    received = _read_fast(bench, home.client)
    expect_bytes("an answer, then at once the end", sent=b"".join(parts), received=received)


def _read_fast(bench: Bench, client: socket.socket) -> bytes:
    """All up to the end, without a pause between reads as long as there is something."""
    data = bytearray()
    while True:
        bench.wait(client, what="an answer and the end of its connection")
        with suppress(BlockingIOError):
            while chunk := client.recv(_PART):
                data += chunk
            return bytes(data)
