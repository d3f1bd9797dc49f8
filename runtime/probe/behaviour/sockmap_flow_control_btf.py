# SPDX-License-Identifier: Apache-2.0
"""Looking at an upstream's send queue: what fits is redirected, the rest is passed, none is lost."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect_bytes
from runtime.probe.behaviour.flow_control import BUFFER, TOO_MUCH, push
from runtime.probe.behaviour.outcome import BrokenError
from runtime.probe.behaviour.sockets import Counter, Sockets


@check(
    "sockmap.flow_control.btf",
    needs=("btf",),
    consequence="only messages known to be small are redirected; streams go over TCP by the gate",
    remedy="a kernel with BTF (CONFIG_DEBUG_INFO_BTF) and CAP_PERFMON, not locked down",
)
def sockmap_flow_control_btf(bench: Bench) -> None:
    sockets = Sockets(bench, "flow", verdict="upstream")
    bench.attach(sockets.object, "keep")
    client, gate = bench.pair(buffer=BUFFER)
    upstream, server = bench.pair(buffer=BUFFER)
    sockets.target(upstream)
    sockets.enroll(client, to=upstream)
    data = pattern(TOO_MUCH)
    taken = push(client, data)
    if taken >= TOO_MUCH:
        seen = f"all of {TOO_MUCH} bytes accepted"
        raise BrokenError("sending to a server that sleeps", expected="to be held back", seen=seen)
    fitted = sockets.count(Counter.REDIRECTED_BYTES)
    redirected = bench.receive(server, fitted, what="what fitted, at the upstream's server")
    passed = bench.receive(gate, taken - fitted, what="what did not fit, at the gate")
    expect_bytes("to an upstream and the gate", sent=data[:taken], received=redirected + passed)
    if not redirected or not passed:
        seen = f"{len(redirected)} and {len(passed)} bytes"
        raise BrokenError("an upstream that gets full", expected="some to each", seen=seen)
    bench.saw(f"{len(redirected)} bytes fitted and arrived, {len(passed)} were passed: none lost")
