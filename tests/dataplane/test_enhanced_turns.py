# SPDX-License-Identifier: Apache-2.0
"""Endpoints that weigh the same have the requests of a connection in turn."""

from __future__ import annotations

from collections import Counter

import pytest

from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4

pytestmark = pytest.mark.root

NAMES = "pqr"


@pytest.fixture
def three(stage: Stage) -> Stage:
    ports = [stage.backend("serve", "127.0.0.1", name) for name in NAMES]
    stage.ports.set_cluster("three", [Target("127.0.0.1", port) for port in ports])
    stage.route(table(to("/", "three")))
    return stage


def _connect(stage: Stage) -> int:
    """The first request comes before the gate has accepted, which chooses for it."""
    number = int(stage.client("connect", VIP4, PORT))
    assert stage.client("ask", number, "/first")[0] == 200
    return number


def _ask(stage: Stage, number: int, times: int) -> str:
    return "".join(stage.client("ask", number, "/x")[1] for _ in range(times))


def test_requests_of_a_connection_go_round(three: Stage) -> None:
    number, before = _connect(three), three.taken()
    asked = _ask(three, number, 12)
    assert sorted(asked[:3]) == sorted(NAMES)
    assert asked == asked[:3] * 4
    assert three.taken() > before + 6


def test_connections_begin_anywhere(three: Stage) -> None:
    begun = Counter(_ask(three, _connect(three), 1) for _ in range(60))
    assert set(begun) == set(NAMES)  # none of three in 60: once in 10^10


def test_an_endpoint_more_or_less_changes_the_round_at_once(three: Stage) -> None:
    number = _connect(three)
    _ask(three, number, 6)
    port = three.backend("serve", "127.0.0.1", "s")
    three.ports.set_cluster("three", [Target("127.0.0.1", port)])
    assert _ask(three, number, 4) == "ssss"
    other = three.backend("serve", "127.0.0.1", "t")
    three.ports.set_cluster("three", [Target("127.0.0.1", port), Target("127.0.0.1", other)])
    assert _ask(three, number, 6) in ("ststst", "tststs")
