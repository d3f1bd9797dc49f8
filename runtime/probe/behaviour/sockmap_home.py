# SPDX-License-Identifier: Apache-2.0
"""Answers redirected to a client and answers passed to it keep their order; TCP holds back what is passed."""

from __future__ import annotations

import select
import socket

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect, expect_bytes
from runtime.probe.behaviour.flow_control import BUFFER
from runtime.probe.behaviour.home import FOR_GATE, Home, Homes
from runtime.probe.behaviour.outcome import BrokenError

_SIZES = (1, 100, 1448, 4097, 16384)
_ROUNDS = 20
_BOUND = 8 * 1024 * 1024  # many times what small buffers of both ends hold


@check(
    "sockmap.home",
    uses="sockmap.ingress",
    needs=("map.sockhash",),
    consequence="answers go home by the gate, not into the client's receive queue",
    remedy="kernel 6.4 or later, where TCP holds back what a verdict program passes",
)
def sockmap_home(bench: Bench) -> None:
    homes = Homes(bench)
    _segments(bench, Home(homes))
    _by_turns(bench, Home(homes))
    _end_of_upstream(bench, Home(homes))
    _held_back(bench, Home(homes, buffer=BUFFER))


def _segments(bench: Bench, home: Home) -> None:
    """Segments come one after the other, and their numbers say so; each goes where it is to."""
    for size in _SIZES:
        for receiver, first in ((home.client, b"C"), (home.upstream, FOR_GATE)):
            _send(bench, home.server, receiver, first + pattern(size), what="a segment of many")
    expect("segments that are not where their numbers say", expected=0, seen=home.broken())
    bench.saw(f"{2 * len(_SIZES)} segments, redirected and passed by turns, said where they belong")


def _send(
    bench: Bench, sender: socket.socket, receiver: socket.socket, sent: bytes, *, what: str
) -> None:
    sender.sendall(sent)
    expect_bytes(what, sent=sent, received=bench.receive(receiver, len(sent), what=what))


def _by_turns(bench: Bench, home: Home) -> None:
    """What is passed to the client right after a redirect comes behind it."""
    for turn in range(_ROUNDS):
        sent = b"C" + pattern(_SIZES[turn % len(_SIZES)])
        home.server.sendall(sent)
        what = "an answer, then at once one by the gate"
        passed = pattern(100, start=4 * turn)
        home.gate.sendall(passed)
        received = bench.receive(home.client, len(sent) + len(passed), what=what)
        expect_bytes(what, sent=sent + passed, received=received)
    bench.saw(f"{_ROUNDS} answers, each with one by the gate right behind: in that order")


def _end_of_upstream(bench: Bench, home: Home) -> None:
    """The end of the upstream's connection is not the client's."""
    sent = b"C" + pattern(_SIZES[-1])
    home.server.sendall(sent)
    home.server.close()
    what = "an answer before an upstream's end"
    expect_bytes(what, sent=sent, received=bench.receive(home.client, len(sent), what=what))
    expect("at the upstream", expected=b"", seen=bench.receive_all(home.upstream, what="its end"))
    _send(bench, home.gate, home.client, b"more", what="data after an upstream's end")
    bench.saw("the end of an upstream's connection stayed its own")


def _held_back(bench: Bench, home: Home) -> None:
    """Whoever sends what is passed to a reader that does not read has to wait (since 6.4)."""
    home.unbind()
    sent = bytearray()
    while len(sent) < _BOUND:
        chunk = pattern(65536, start=len(sent))
        try:
            sent += chunk[: home.server.send(chunk)]
        except BlockingIOError:
            if not _gets_ready(home.server):
                break
    else:
        what = "a sender whose data is passed and not read"
        raise BrokenError(what, expected="that it must wait", seen=f"{len(sent)} bytes accepted")
    what = "what was passed"
    received = bench.receive(home.upstream, len(sent), what=what)
    expect_bytes(what, sent=bytes(sent), received=received)
    bench.saw(f"a sender had to wait after {len(sent)} passed bytes, all of which arrived")


def _gets_ready(sender: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sender, select.POLLOUT)
    return bool(poll.poll(20))
