# SPDX-License-Identifier: Apache-2.0
"""The same requests through a real Envoy and through the kernel: the same backend, status and location.

Together with the oracle of the matcher alone (tests/plan) it is more than 20,000 requests a run.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.model.http import (
    Action,
    DirectResponse,
    Forward,
    Redirect,
    Route,
    RouteTable,
    WeightedCluster,
)
from runtime.plan import walk
from runtime.plan.reference import Request, choose
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.world import VIP4
from tests.plan.envoy_oracle import Answer, Envoy, envoy
from tests.plan.http_worlds import Maker, tables, wire
from tests.plan.test_plan_oracle import full_match, number_of

pytestmark = [pytest.mark.root, pytest.mark.slow]

TABLES = int(os.environ.get("KMESH_LIVE_ORACLE_TABLES", "60"))
REQUESTS = 150  # a table
BACKENDS = [f"c{number}" for number in range(8)]
COUNTED: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class Both:
    """The two ways that a request may take to the same backends."""

    stage: Stage
    oracle: Envoy


@pytest.fixture(scope="module")
def both(
    shared_stage: Stage, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    shared_stage.renew()
    ports = shared_stage.serve(*BACKENDS)
    directory = tmp_path_factory.mktemp("envoy")
    within = shared_stage.inside()
    with envoy(checkout / ".venv/bin/envoy", directory, ports=ports, prefix=within) as running:
        yield Both(shared_stage, running)


def _action(index: int, draw: random.Random) -> Action:
    if draw.random() < 0.8:
        return Forward((WeightedCluster(BACKENDS[index % len(BACKENDS)], 1),))
    if draw.random() < 0.5:
        return DirectResponse(draw.choice((200, 204, 403, 404, 429, 503)))
    return Redirect(
        status=draw.choice((301, 302, 307)),
        host=draw.choice((None, "b.test")),
        path=draw.choice((None, "/new")),
        https=draw.random() < 0.3,
        strip_query=draw.random() < 0.3,
    )


def with_actions(table: RouteTable, seed: int) -> RouteTable:
    """The table's matches, most of which lead to a backend of their own."""
    draw, index = random.Random(seed), 0
    hosts = []
    for host in table.virtual_hosts:
        routes: list[Route] = []
        for route in host.routes:
            beyond = ("timeout: 3s",) if draw.random() < 0.03 else ()
            routes.append(replace(route, action=_action(index, draw), beyond=beyond))
            index += 1
        hosts.append(replace(host, routes=tuple(routes)))
    return replace(table, virtual_hosts=tuple(hosts))


def with_body(request: Request, draw: random.Random) -> bytes:
    """A request as bytes, some of which have a body."""
    head = wire(request)
    if draw.random() < 0.6:
        return head
    content = draw.randbytes(draw.choice((1, 5, 700, 9000)))
    if draw.random() < 0.7:
        return head[:-2] + f"Content-Length: {len(content)}\r\n\r\n".encode() + content
    chunk = f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"
    return head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + chunk


def is_left_to_a_waypoint(
    table: RouteTable, compiled: CompiledRoutes, waypoint: dict[int, str], request: Request
) -> bool:
    """As the plan says of the route that the request takes, or the reader of the head itself."""
    routed = walk.route(compiled, wire(request))
    if routed.verdict is not Verdict.OK or routed.route in waypoint:
        return True  # also where only a proxy can tell that it is not that route
    return number_of(table, choose(table, request, full_match=full_match)) in waypoint


def agree(
    data: bytes, wanted: Answer, found: list[object], may_be_left: Callable[[], bool]
) -> None:
    """Ours is Envoy's, or says that it takes a waypoint, where the plan says so too."""
    status, backend, target, location, reason = found
    if status == 503 and "waypoint" in str(reason):
        COUNTED["at the waypoint"] += 1
        assert may_be_left(), data
        return
    ours = (status, backend, target, location)
    assert ours == (wanted.status, wanted.backend, wanted.target, wanted.location), data
    COUNTED["the same"] += 1


@settings(
    max_examples=TABLES, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(drawn=tables(), seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=3))
def test_the_live_path_and_envoy_answer_alike(
    both: Both, drawn: RouteTable, seeds: list[int]
) -> None:
    table = with_actions(drawn, seeds[0])
    draw, maker = random.Random(seeds[0]), Maker(table)
    requests = [
        maker.request(seed + index) for seed in seeds for index in range(REQUESTS // len(seeds))
    ]
    sent = [with_body(request, draw) for request in requests]
    compiled, waypoint = compile_routes(table), both.stage.route(table)
    both.oracle.load(table)
    texts = [data.decode("latin-1") for data in sent]
    before = both.stage.taken()
    answers = both.stage.client("ask_many", VIP4, PORT, texts, seeds[0])
    COUNTED["by the kernel"] += both.stage.taken() - before
    for request, data, found, wanted in zip(
        requests, sent, answers, both.oracle.ask(sent), strict=True
    ):

        def may_be_left(request: Request = request) -> bool:
            return is_left_to_a_waypoint(table, compiled, waypoint, request)

        agree(data, wanted, found, may_be_left)


def test_most_of_it_was_answered(record_property: Callable[[str, object], None]) -> None:
    """A path that leaves everything to a waypoint would pass the test above."""
    print(dict(COUNTED))
    for name, count in COUNTED.items():
        record_property(name, count)
    assert COUNTED["the same"] >= 0.7 * TABLES * REQUESTS
    assert COUNTED["by the kernel"] > 0.05 * COUNTED["the same"]
