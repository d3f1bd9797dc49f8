# SPDX-License-Identifier: Apache-2.0
"""A socket takes another's place in a map: what is sent there goes to the new one from then on."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect_bytes
from runtime.probe.behaviour.sockets import Sockets


@check(
    "sockmap.replace",
    uses="sockmap.egress",
    needs=("map.sockhash",),
    consequence="sockets are only added and removed, never replaced: a reused slot waits for the"
    " old socket to close",
    remedy="a newer kernel; nothing else depends on it",
)
def sockmap_replace(bench: Bench) -> None:
    sockets = Sockets(bench, "redirect", verdict="forward")
    client, _gate = bench.pair()
    before, old = bench.pair()
    after, new = bench.pair()
    sockets.target(before)
    sockets.enroll(client, to=before)
    for upstream, server, start in ((before, old, 0), (after, new, 500)):
        if upstream is after:
            sockets.replace(before, by=after)
        sent = pattern(500, start=start)
        client.sendall(sent)
        received = bench.receive(server, 500, what="bytes by the socket in the map")
        expect_bytes("sent to what is in the map", sent=sent, received=received)
    bench.saw("the new socket carries what is sent to its place")
    before.sendall(b"on its own")
    received = bench.receive(old, 10, what="bytes of the socket that was replaced")
    expect_bytes("sent by the one replaced", sent=b"on its own", received=received)
    bench.saw("the socket that was replaced is an ordinary one again")
