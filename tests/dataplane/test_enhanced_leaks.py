# SPDX-License-Identifier: Apache-2.0
"""Whatever connections come to, what they held comes back."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from runtime.launch.gate import running
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_ledger import cpu_seconds, expect, take
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.test_enhanced_handover import another_version, is_gone
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root


def gate_of(stage: Stage) -> int:
    pid = running(stage.place)
    assert pid
    return pid


def take_unread(stage: Stage) -> int:
    return sum(1 for _ in stage.path.maps["upstream_socks"].items())


def test_clients_that_are_gone_before_the_gate_accepts(routed: Stage) -> None:
    """A reset makes an accepted connection one without a peer; its slot is known all the same."""
    before, gate = take(routed), gate_of(routed)
    os.kill(gate, signal.SIGSTOP)
    try:
        for source in [0] * 20 + [45678] * 3:  # a port that is used again, too
            routed.client("abort", routed.client("connect", VIP4, PORT, source))
    finally:
        os.kill(gate, signal.SIGCONT)
    expect(routed, before)


def test_clients_that_are_gone_before_their_endpoint_is_reached(routed: Stage) -> None:
    """The dialled connection is established, and nobody asks where the kernel keeps it."""
    wait_for(lambda: take_unread(routed) == 0, "nothing is left of other tests")
    port = routed.backend("crowded", "127.0.0.1")
    routed.ports.set_cluster("a", [Target("127.0.0.1", port)])
    number = routed.client("connect", VIP4, PORT)
    routed.client("send", number, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: routed.status()["busy"] == 1, "it is dialled")
    gate = gate_of(routed)
    os.kill(gate, signal.SIGSTOP)
    routed.client("abort", number)
    try:
        routed.backend("let_in", port)
        wait_for(lambda: take_unread(routed) == 1, "the connection is established")
    finally:
        os.kill(gate, signal.SIGCONT)
    wait_for(lambda: routed.status()["busy"] == 0, "no connection is in use")
    assert take_unread(routed) == 0


def test_what_busy_endpoints_held_comes_back_after_an_upgrade(
    routed: Stage, tmp_path: Path
) -> None:
    """Their pools were numbered by the old gate, and have no connection in the next."""
    wait_for(lambda: take(routed).pools == 0, "nothing is left of other tests")
    number = routed.client("connect", VIP4, PORT)
    routed.client("send", number, "GET /b/slow/1 HTTP/1.1\r\nHost: x\r\n\r\n")
    old = gate_of(routed)
    another_version(routed, tmp_path)
    routed.start_gate()
    assert routed.client("read", number)[:2] == [200, "b"]
    wait_for(lambda: is_gone(old), "the old gate ends")
    routed.client("close", number)
    wait_for(lambda: take(routed).pools == 0, "the pool's number is free again")


def test_an_endpoint_that_resets_while_its_reader_sleeps_costs_no_time(routed: Stage) -> None:
    """The gate cannot read on, and the reset is no reason to look again and again."""
    number = routed.client("connect", VIP4, PORT)
    routed.client("send", number, "GET /a/burst/30000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    gate = gate_of(routed)
    time.sleep(1)  # by now it is reset
    before = cpu_seconds(gate)
    time.sleep(2)
    assert cpu_seconds(gate) - before < 0.2
