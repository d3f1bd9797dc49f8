# SPDX-License-Identifier: Apache-2.0
"""FIONREAD on an enrolled socket counts what was redirected into its receive queue."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import check
from runtime.probe.behaviour.outcome import BrokenError
from runtime.probe.behaviour.remedy import choose, counted
from runtime.probe.behaviour.sockets import Sockets


@check(
    "sockmap.fionread.ingress",
    uses="sockmap.ingress",
    consequence="answers go home by the gate, not into the client's receive queue",
    remedy="kernel 6.12 or later",
)
def sockmap_fionread_ingress(bench: Bench) -> None:
    sockets = Sockets(bench, "redirect", verdict="forward")
    sockets.verdict("come_home", "targets")
    remedy = choose(bench, sockets)
    client, _gate = bench.pair()
    upstream, server = bench.pair()
    sockets.enroll(client)
    sockets.target(upstream, home=client)
    for way in ("first", "second"):
        announced = counted(bench, server, client)
        if announced != 100:
            what = f"FIONREAD, {way} redirected answer, remedy {remedy}"
            raise BrokenError(what, expected=100, seen=announced)
    bench.saw(f"FIONREAD on redirected answers is right; remedy {remedy}")
