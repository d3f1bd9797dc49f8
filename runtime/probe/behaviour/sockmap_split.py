# SPDX-License-Identifier: Apache-2.0
"""A request head that comes in several writes reaches the gate whole; the next is routed again."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import check, expect, expect_bytes
from runtime.probe.behaviour.exchange import Exchange
from runtime.probe.behaviour.sockets import Counter

_HEAD = b"GET /a HTTP/1.1\r\nHost: split.example\r\n\r\n"
# In the method, after the part that a route is chosen by, and within the line ends that end a head.
_CUTS = (2, 9, 20, len(_HEAD) - 3, len(_HEAD) - 1)


@check(
    "sockmap.split",
    consequence="requests written in pieces would be routed wrongly: no enhanced path",
    remedy="another kernel; until then HTTP goes by the compat path",
)
def sockmap_split(bench: Bench) -> None:
    exchange = Exchange(bench)
    client, gate = exchange.client()
    for cut in _CUTS:
        for piece in (_HEAD[:cut], _HEAD[cut:]):
            client.sendall(piece)
        received = bench.receive(gate, len(_HEAD), what="both pieces of a head at the gate")
        expect_bytes(f"a head cut after {cut} bytes", sent=_HEAD, received=received)
        expect("messages routed", expected=0, seen=exchange.sockets.count(Counter.REDIRECTED))
    bench.saw(f"heads cut after {', '.join(map(str, _CUTS))} bytes reached the gate whole")
    client.sendall(_HEAD)
    received = bench.receive(exchange.servers[b"a"], len(_HEAD), what="a whole head upstream")
    expect_bytes("a whole head after cut ones", sent=_HEAD, received=received)
    bench.saw("a whole head after them was routed to its upstream")
