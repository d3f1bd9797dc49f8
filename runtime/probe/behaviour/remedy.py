# SPDX-License-Identifier: Apache-2.0
"""FIONREAD on enrolled sockets, and the remedy that other checks need before they can be fair.

Where the kernel counts only what a verdict program handed over (6.6.128, 6.12.75, 6.18.14, 6.19 and
later, see docs on known bugs) a stream verdict that passes everything makes the count right again.
On older kernels it makes the count wrong, so it is chosen by looking, never by version.
"""

from __future__ import annotations

import socket
from enum import StrEnum

from runtime.probe.behaviour.bench import Bench, unread
from runtime.probe.behaviour.outcome import BrokenError
from runtime.probe.behaviour.sockets import Sockets

_SIZE = 100


class Remedy(StrEnum):
    NONE = "none"  # right as it is
    NOOP_VERDICT = "noop-verdict"  # right with a no-op stream verdict on the socket's map


def counted(bench: Bench, sender: socket.socket, receiver: socket.socket) -> int:
    """Send some bytes, and return how many FIONREAD announces once they are there to be read."""
    sender.sendall(bytes(_SIZE))
    bench.wait(receiver, what="data at an enrolled socket")
    announced = unread(receiver)
    bench.receive(receiver, _SIZE, what="data at an enrolled socket")
    return announced


def _passed(bench: Bench, sockets: Sockets, *, way: str, keep: bool) -> bool:
    client, server = bench.pair()
    sockets.enroll(client)
    announced = counted(bench, server, client)
    if keep:
        bench.look(f"FIONREAD, passed data, {way}: {announced} of {_SIZE}", fine=announced == _SIZE)
    return announced == _SIZE


def choose(bench: Bench, sockets: Sockets, *, keep: bool = False) -> Remedy:
    """Find what makes FIONREAD right for passed data, and leave the map so.

    Args:
        bench: where it is tried.
        sockets: a loaded object with a program `noop`, which is attached when it is the remedy.
        keep: keep an observation for each way that was tried.

    Raises:
        BrokenError: neither way is right.
    """
    if _passed(bench, sockets, way="no verdict program", keep=keep):
        return Remedy.NONE
    sockets.verdict("noop", "enrolled")
    if _passed(bench, sockets, way="no-op stream verdict", keep=keep):
        return Remedy.NOOP_VERDICT
    seen = "another number with and without a no-op stream verdict"
    raise BrokenError("FIONREAD on passed data", expected=_SIZE, seen=seen)
