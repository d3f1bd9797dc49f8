# SPDX-License-Identifier: Apache-2.0
"""The end of a client's connection comes behind the answer that was redirected to it before."""

from __future__ import annotations

import socket

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect_bytes
from runtime.probe.behaviour.flow_control import BUFFER
from runtime.probe.behaviour.home import Home, Homes

_PART, _PARTS = 16384, 4


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
    client's buffer holds: some is then sure to wait still when the end comes, and one try tells.
    """
    home = Home(Homes(bench), buffer=BUFFER)
    parts = [b"C" + pattern(_PART - 1, start=_PART * number) for number in range(_PARTS)]
    for part in parts:
        home.server.sendall(part)
    home.gate.shutdown(socket.SHUT_WR)
    received = bench.receive_all(home.client, what="an answer and the end of its connection")
    expect_bytes("an answer, then at once the end", sent=b"".join(parts), received=received)
    bench.saw("the end of a connection came behind an answer that was redirected just before")
