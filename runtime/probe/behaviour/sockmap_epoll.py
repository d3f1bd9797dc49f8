# SPDX-License-Identifier: Apache-2.0
"""Edge-triggered epoll wakes for every arrival at an enrolled socket, and for its end."""

from __future__ import annotations

import select
import socket

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import check
from runtime.probe.behaviour.outcome import BrokenError
from runtime.probe.behaviour.remedy import choose
from runtime.probe.behaviour.sockets import Sockets

_EDGE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


@check(
    "sockmap.epoll",
    consequence="event loops (nginx, Node, Go, Envoy) miss data on enrolled sockets and hang",
    remedy="another kernel; until then HTTP goes by the compat path",
)
def sockmap_epoll(bench: Bench) -> None:
    sockets = Sockets(bench, "redirect", verdict="forward")
    if bench.ingress:
        sockets.verdict("come_home", "targets")
    choose(bench, sockets)
    client, gate = bench.pair()
    upstream, server = bench.pair()
    sockets.enroll(client)
    sockets.target(upstream, home=client)
    with select.epoll() as epoll:
        epoll.register(client, _EDGE)
        _arrivals(bench, epoll, client, sender=gate, way="passed")
        if bench.ingress:
            _arrivals(bench, epoll, client, sender=server, way="redirected")
        gate.close()
        _event(bench, epoll, after="the peer closed")
        bench.saw("the end of the connection woke it")


def _event(bench: Bench, epoll: select.epoll, *, after: str) -> None:
    patience = bench.patience()
    if not epoll.poll(patience):
        raise BrokenError(
            f"edge-triggered epoll after {after}",
            expected="an event",
            seen=f"none within {patience:.1f} s",
        )


def _arrivals(
    bench: Bench, epoll: select.epoll, client: socket.socket, *, sender: socket.socket, way: str
) -> None:
    """Data arrives, is read in part, more arrives, is read to the end, and more arrives again."""
    for size, read in ((10, 5), (10, 15), (10, 10)):
        sender.sendall(bytes(size))
        _event(bench, epoll, after=f"{way} data arrived")
        bench.receive(client, read, what=f"{way} data")
    bench.saw(f"each of three arrivals of {way} data woke it")
