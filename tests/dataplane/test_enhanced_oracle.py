# SPDX-License-Identifier: Apache-2.0
"""The same requests through a real Envoy and through the kernel: the same backend, status and location.

More than 20,000 requests a run, of which the kernel takes most: what it has to leave to the gate is kept rare.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
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
from runtime.source.envoy.messages import ROUTES
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.world import VIP4
from tests.plan.envoy_oracle import Answer, Envoy, envoy
from tests.plan.http_worlds import Maker, tables, wire
from tests.plan.test_plan_oracle import full_match, number_of
from tests.source.envoy.wire import recorded

pytestmark = [pytest.mark.root, pytest.mark.slow]

TABLES = int(os.environ.get("KMESH_LIVE_ORACLE_TABLES", "210"))
REQUESTS = 150  # a table
_TRIES = 6  # for each
_OTHERS = 0.1  # that lead to no backend
BACKENDS = [f"c{number}" for number in range(8)]
COUNTED: Counter[str] = Counter()
KERNEL: Counter[str] = Counter()  # what became of messages there


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
    for name, backend in zip(clusters_of(istiods()), cycle(BACKENDS)):
        ports[name] = ports[backend]
        shared_stage.point(name, ports[name])
    directory = tmp_path_factory.mktemp("envoy")
    within = shared_stage.inside()
    with envoy(checkout / ".venv/bin/envoy", directory, ports=ports, prefix=within) as running:
        yield Both(shared_stage, running)


def istiods() -> list[RouteTable]:
    """What Istiod sent, with its clusters; of a choice among several the first, as chance has no twin."""
    found = []
    for table in recorded(ROUTES).values():
        hosts = [
            replace(host, routes=tuple(map(_first_alone, host.routes)))
            for host in table.virtual_hosts
        ]
        found.append(replace(table, virtual_hosts=tuple(hosts)))
    return found


def _first_alone(route: Route) -> Route:
    if isinstance(route.action, Forward):
        return replace(route, action=Forward(route.action.clusters[:1]))
    return route


def clusters_of(some: list[RouteTable]) -> list[str]:
    """The clusters that routes lead to."""
    routes = [one for table in some for host in table.virtual_hosts for one in host.routes]
    actions = [one.action for one in routes if isinstance(one.action, Forward)]
    return list(dict.fromkeys(cluster.name for one in actions for cluster in one.clusters))


def _action(index: int, draw: random.Random) -> Action:
    if draw.random() < 0.9:
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
    if draw.random() < 0.8:
        return head
    content = draw.randbytes(draw.choice((1, 5, 700, 700, 9000)))
    if draw.random() < 0.7:
        return head[:-2] + f"Content-Length: {len(content)}\r\n\r\n".encode() + content
    chunk = f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"
    return head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + chunk


def requests_for(table: RouteTable, seeds: list[int]) -> list[Request]:
    """Most of them for routes that lead to a backend: where there is none the kernel has nothing to do."""
    found: list[Request] = []
    maker, others, share = Maker(table), 0, REQUESTS // len(seeds)
    for number, seed in enumerate(seeds, 1):
        for index in range(_TRIES * share):
            if len(found) == number * share:
                break
            request = maker.request(seed + index)
            if not leads_on(table, request):
                if others > _OTHERS * len(found) + 1:
                    continue
                others += 1
            found.append(request)
    return found


def leads_on(table: RouteTable, request: Request) -> bool:
    """Whether a request takes a route to a backend."""
    found = choose(table, request, full_match=full_match)
    if found.host is None or found.route is None:
        return False
    route = table.virtual_hosts[found.host].routes[found.route]
    return isinstance(route.action, Forward) and not route.beyond


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
    compare(both, with_actions(drawn, seeds[0]), seeds)


def compare(both: Both, table: RouteTable, seeds: list[int]) -> None:
    """Send the same requests both ways."""
    draw, requests = random.Random(seeds[0]), requests_for(table, seeds)
    sent = [with_body(request, draw) for request in requests]
    compiled, waypoint = compile_routes(table), both.stage.route(table)
    both.oracle.load(table)
    texts = [data.decode("latin-1") for data in sent]
    before = both.stage.path.gate_counters()
    answers = both.stage.client("ask_many", VIP4, PORT, texts, seeds[0])
    for name, count in both.stage.path.gate_counters().items():
        KERNEL[name] += count - before[name]
    for request, data, found, wanted in zip(
        requests, sent, answers, both.oracle.ask(sent), strict=True
    ):

        def may_be_left(request: Request = request) -> bool:
            return is_left_to_a_waypoint(table, compiled, waypoint, request)

        agree(data, wanted, found, may_be_left)


@pytest.mark.parametrize("table", istiods(), ids=lambda table: table.name)
def test_what_istiod_sent_is_answered_alike(both: Both, table: RouteTable) -> None:
    taken = KERNEL["taken"]
    compare(both, table, [1, 2, 3])
    assert KERNEL["taken"] > taken + REQUESTS // 3


def test_most_of_it_was_answered(record_property: Callable[[str, object], None]) -> None:
    """A path that leaves everything to a waypoint, or to the gate, would pass the tests above."""
    print(dict(COUNTED), dict(KERNEL))
    for name, count in {**COUNTED, **KERNEL}.items():
        record_property(name, count)
    assert COUNTED["the same"] >= 10 * COUNTED["at the waypoint"]
    assert COUNTED["the same"] + COUNTED["at the waypoint"] >= 20_000 or TABLES < 210
    assert KERNEL["taken"] > 0.6 * COUNTED["the same"]
