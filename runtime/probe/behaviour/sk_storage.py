# SPDX-License-Identifier: Apache-2.0
"""What sockops keeps on a socket is what sk_msg finds there: the same socket, its own value."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench, cookie
from runtime.probe.behaviour.check import check, expect
from runtime.probe.behaviour.sockets import Counter, Sockets


@check(
    "sk_storage",
    needs=("map.sk_storage",),
    consequence="programs cannot keep a connection's state on its socket: no enhanced path",
    remedy="kernel 5.10 or later",
)
def sk_storage(bench: Bench) -> None:
    sockets = Sockets(bench, "sockops", verdict="recall")
    bench.attach(sockets.object, "enroll")
    client, server = bench.pair()
    for end in (client, server):
        expect("what a socket keeps, from outside", expected=cookie(end), seen=sockets.kept(end))
    bench.saw("user space reads what a program kept on a socket")
    total = 0
    for sender, receiver in ((client, server), (server, client)):
        sender.sendall(b"recall")
        bench.receive(receiver, 6, what="a message that was passed")
        total += cookie(sender)
        seen = sockets.count(Counter.RETURNED)
        expect("what sk_msg finds on the sender's socket", expected=total, seen=seen)
    bench.saw("sk_msg finds on the sender's socket what sockops kept there")
