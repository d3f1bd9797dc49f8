# SPDX-License-Identifier: Apache-2.0
"""Connections that the kernel keeps for a client: nobody else's meanwhile, and others' afterwards."""

from __future__ import annotations

import pytest

from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4, end_agent, wait_for

pytestmark = pytest.mark.root


def _connect(stage: Stage) -> int:
    return int(stage.client("connect", VIP4, PORT))


def _ask(stage: Stage, number: int, target: str, times: int = 1) -> list[object]:
    return [stage.client("ask", number, target)[1] for _ in range(times)]


def test_a_client_keeps_its_connections_and_the_kernel_takes_all_after_the_first(
    routed: Stage,
) -> None:
    number = _connect(routed)
    _ask(routed, number, "/a")
    _ask(routed, number, "/b")
    before = routed.taken()
    for _ in range(20):
        assert _ask(routed, number, "/a") + _ask(routed, number, "/b") == ["a", "b"]
    assert routed.taken() == before + 40
    assert routed.status()["idle"] == 2


def test_what_a_client_keeps_no_other_uses(routed: Stage) -> None:
    first, second = _connect(routed), _connect(routed)
    assert _ask(routed, first, "/a", 3) == ["a"] * 3  # kept since the second
    assert _ask(routed, second, "/a", 3) == ["a"] * 3
    assert routed.status()["idle"] == 2


def test_what_a_client_kept_is_there_for_others_when_it_is_gone(routed: Stage) -> None:
    number = _connect(routed)
    _ask(routed, number, "/a", 3)
    routed.client("close", number)
    wait_for(lambda: routed.status()["sessions"] == 0, "the client is gone")
    again = _connect(routed)

    def asked_and_taken() -> bool:
        before = routed.taken()
        fresh = _connect(routed)
        assert _ask(routed, fresh, "/a") == ["a"]
        routed.client("close", fresh)
        return routed.taken() > before

    wait_for(asked_and_taken, "a first request finds a connection")
    assert _ask(routed, again, "/a") == ["a"]


def test_more_endpoints_than_a_client_can_keep(stage: Stage) -> None:
    names = "abcdefgh"
    stage.serve(*names)
    stage.route(table(*(to(f"/{name}", name) for name in names)))
    number, before = _connect(stage), stage.taken()
    for _ in range(10):
        for name in names:
            assert _ask(stage, number, f"/{name}") == [name]
    assert stage.taken() == before + 9 * len(names)
    assert stage.status()["idle"] == len(names)


def test_the_endpoint_ends_while_a_client_keeps_a_connection_to_it(stage: Stage) -> None:
    """What follows is answered by another connection, or by 503 at first: never by nothing."""
    first = stage.agent()
    port = first("serve", "127.0.0.1", "a")
    stage.ports.set_cluster("a", [Target("127.0.0.1", port)])
    stage.route(table(to("/", "a")))
    number = _connect(stage)
    assert _ask(stage, number, "/", 3) == ["a"] * 3
    end_agent(first)
    stage.agents.remove(first)
    stage.agent()("serve", "127.0.0.1", "again", port)
    answers = [stage.client("ask", number, "/")[:2] for _ in range(5)]
    assert answers[-1] == [200, "again"]
    assert {status for status, _ in answers} <= {200, 503}
