# SPDX-License-Identifier: Apache-2.0
"""Ten thousand routes that ask for more than a path: all of them decided, and as a plain walk over them does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.model.http import (
    DirectResponse,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    Route,
    RouteMatch,
    RouteTable,
    TextKind,
    TextMatch,
    VirtualHost,
)
from runtime.plan.reference import Request, choose
from runtime.plan.walk import Routed
from runtime.tables import http_graph, http_room
from runtime.tables.http_numbers import PLACES, Verdict
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from tests.plan.http_worlds import Maker, tables, wire
from tests.plan.native import Matcher
from tests.plan.test_plan_oracle import full_match, number_of

MANY = 10_000
HOSTS = ("shop.test", "api.test", "*.tenants.test")
EXACT, PREFIX = PathKind.EXACT, PathKind.PREFIX


def header(name: str, text: str, kind: TextKind = TextKind.EXACT) -> HeaderMatch:
    return HeaderMatch(name, TextMatch(kind, text))


def method(name: str) -> HeaderMatch:
    return header(":method", name)


def route(
    path: str, kind: PathKind, *headers: HeaderMatch, query: tuple[QueryMatch, ...] = ()
) -> Route:
    match = RouteMatch(PathMatch(kind, path), headers, query)
    return Route(match=match, action=DirectResponse(200))


def some(number: int, draw: random.Random) -> list[Route]:
    """Routes for one path, of one of the kinds that services have."""
    path = f"/v{draw.randrange(1, 4)}/part-{draw.randrange(40)}/item-{number:05}"
    mode = QueryMatch("mode", TextMatch(TextKind.EXACT, draw.choice(("a", "b"))))
    kinds = [
        [route(path, EXACT, method(draw.choice(("GET", "POST"))))],
        [route(path, EXACT, method(one)) for one in ("GET", "POST", "DELETE")],
        [route(path, EXACT, method("GET"), header("x-tenant", f"t{number % 40}"), query=(mode,))],
        [
            route(path + "/", PREFIX, header("x-version", draw.choice(("v2", "canary")))),
            route(path + "/", PREFIX),
        ],
        [route(path, PathKind.SEPARATED_PREFIX, header("x-user", f"u{number}-", TextKind.PREFIX))],
        [
            route(path, EXACT, header("x-version", "v[0-9]+", TextKind.REGEX), method("PUT")),
            route(path, EXACT),
        ],
    ]
    return draw.choice(kinds)


def mixed(count: int, *, first: tuple[Route, ...] = (), seed: int = 7) -> RouteTable:
    """A few virtual hosts with so many routes in all, most of them in the first."""
    draw = random.Random(seed)
    hosts: list[list[Route]] = [list(first), *([] for _ in HOSTS[1:])]
    while (made := sum(map(len, hosts))) < count:
        draw.choices(hosts, (8, 1, 1))[0].extend(some(made, draw))
    found = zip(HOSTS, hosts, strict=True)
    return RouteTable(
        name="many",
        virtual_hosts=tuple(VirtualHost(name, (name,), tuple(routes)) for name, routes in found),
    )


def asking_for(host: str, own: Route, draw: random.Random) -> Request:
    """A request that the route might be chosen for, which often misses something."""
    asked = {one.name: one.text.value.replace("[0-9]+", "7") for one in own.match.headers}
    verb = asked.pop(":method", "GET")
    query = "&".join(f"{one.name}={one.text.value}" for one in own.match.query)
    path = own.match.path.value + draw.choice(("", "", "", "/", "/more", "x"))
    if draw.random() < 0.2:
        verb = draw.choice(("GET", "POST", "PUT"))
    if asked and draw.random() < 0.2:
        asked.popitem()
    target = f"{path}?{query}" if query and draw.random() < 0.8 else path
    return Request(verb, target, host.replace("*", "a"), tuple(asked.items()))


def asking(made: RouteTable, count: int) -> list[Request]:
    """Requests for routes all over a table."""
    draw = random.Random(count)
    hosts = [draw.choice(made.virtual_hosts) for _ in range(count)]
    return [asking_for(host.name, draw.choice(host.routes), draw) for host in hosts]


def check(made: RouteTable, compiled: CompiledRoutes, matcher: Matcher, request: Request) -> Routed:
    """What is decided is what the first route that matches decides."""
    found = matcher.route(compiled, wire(request))
    if found.verdict is Verdict.OK and found.route not in compiled.rough:
        choice = choose(made, request, full_match=full_match)
        assert found.route == number_of(made, choice), request
    return found


@pytest.fixture(scope="module")
def many() -> CompiledRoutes:
    return compile_routes(mixed(MANY))


def test_all_of_ten_thousand_mixed_routes_are_decided(
    many: CompiledRoutes, matcher: Matcher
) -> None:
    made = mixed(MANY)
    assert many.undecided == many.rough == {}
    found = [check(made, many, matcher, request) for request in asking(made, 300)]
    assert {one.verdict for one in found} == {Verdict.OK}
    assert len({one.route for one in found}) > 150


def test_a_request_costs_the_same_among_ten_thousand(
    many: CompiledRoutes, matcher: Matcher
) -> None:
    made = mixed(100)  # the first of the very same
    few, taken = compile_routes(made), 0
    for request in asking(made, 300):
        head = wire(request)
        one, other = matcher.route(few, head), matcher.route(many, head)
        assert other.steps <= len(head) + 2 * PLACES
        if one.route is not None:
            assert one.steps == other.steps, request
            taken += 1
    assert taken > 150


def test_what_holds_for_every_path_is_not_looked_at_behind_each() -> None:
    """Forty regions before two thousand paths: forty values, not eighty thousand."""
    first = [route("/", PREFIX, header("x-region", f"region-{number}")) for number in range(40)]
    without, compiled = (compile_routes(mixed(2000, first=one)) for one in ((), tuple(first)))
    assert compiled.undecided == {}
    assert len(compiled.graph) < 1.1 * len(without.graph)


def test_routes_that_explode_leave_room_for_the_others(
    monkeypatch: pytest.MonkeyPatch, matcher: Matcher
) -> None:
    monkeypatch.setattr(http_room, "SHARED", 2000)
    draw = random.Random(5)
    texts = [one + other for one in "abc" for other in "abc"]
    odd = [
        route("/odd", PREFIX, *(header(f"h{name}", draw.choice(texts), TextKind.CONTAINS)
                                for name in draw.sample(range(8), 3)))
        for _ in range(60)
    ]  # fmt: skip
    made = mixed(1000, first=tuple(odd))
    compiled = compile_routes(made)
    routes = [one for host in made.virtual_hosts for one in host.routes]
    assert compiled.undecided
    assert {routes[number].match.path.value for number in compiled.undecided} == {"/odd"}
    assert "more than its part of the tables" in next(iter(compiled.undecided.values()))
    for request in asking(made, 200):
        found = check(made, compiled, matcher, request)
        assert found.verdict is Verdict.OK or request.path.startswith("/odd")


@settings(max_examples=100, deadline=None)
@given(made=tables(), seed=st.integers(0, 2**32), room=st.integers(0, 12), alike=st.integers(0, 6))
def test_however_little_room_there_is_no_wrong_route_is_taken(
    matcher: Matcher, made: RouteTable, seed: int, room: int, alike: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_room, "OF_A_ROUTE", room)
        patch.setattr(http_room, "OF_A_LETTER", 0)
        patch.setattr(http_room, "SHARED", 0)
        patch.setattr(http_graph, "MOST_ALIKE", alike)
        compiled = compile_routes(made)
    maker = Maker(made)
    for index in range(20):
        found = check(made, compiled, matcher, maker.request(seed + index))
        assert found.verdict is not Verdict.UNDECIDED or compiled.undecided
