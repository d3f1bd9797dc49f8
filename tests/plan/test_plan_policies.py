# SPDX-License-Identifier: Apache-2.0
"""What an AuthorizationPolicy decides is what a real Envoy does that has its rules as Istio writes them."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runtime.model.http import (
    DirectResponse,
    HttpPort,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
)
from runtime.model.policy import Action, Connection, Policy
from runtime.model.policy import decide as connection_decided
from runtime.plan.guards import rules_of
from runtime.plan.reference import Request
from runtime.plan.walk import route
from runtime.source.authorization_policy import parse_authorization_policy
from runtime.source.fields import Field
from runtime.tables.http_authorization import Decision
from runtime.tables.http_cases import Cases, split
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from tests.plan.envoy_answers import resource
from tests.plan.envoy_oracle import Envoy, envoy
from tests.plan.http_worlds import wire
from tests.plan.istio_policy import filters, per_route, policies
from tests.plan.test_plan_authorize import CLIENTS, SAYS, TELLS, of_envoy, said

WORLDS = int(os.environ.get("KMESH_POLICY_WORLDS", "40"))
REQUESTS = 40
COUNTED: Counter[str] = Counter()
POD = ip_address("10.0.0.2")
PORT = HttpPort(listener="l", address=ip_address("10.96.0.1"), port=80, table="t")
TARGETS = ("/a", "/a/b", "/api", "/api/", "/api/x", "/api/x/y", "/x/v1", "/api/v1/a.json", "/", "/a?b=/v1", "/api/a=b", "/api/a*b", "/api/a=b/v1", "/api/a|b", "/api/%41")  # fmt: skip


def requests(seed: int) -> Request:
    chance = random.Random(seed)
    values = ("1", "one two", "ONE", "two", "")
    headers = [(name, chance.choice(values)) for name in ("x-a", "x-b") if chance.random() < 0.5]
    return Request(
        method=chance.choice(("GET", "POST", "PUT", "HEAD", "DELETE")),
        target=chance.choice(TARGETS),
        authority=chance.choice(("shop.test", "Shop.Test", "shop.test:80", "other.example")),
        headers=tuple(headers),
    )


def read(documents: list[Any]) -> list[Policy]:
    return [
        parse_authorization_policy(Field(one), name=one["metadata"]["name"], namespace="web")
        for one in documents
    ]


def guarded(made: list[Policy]) -> RouteTable:
    """One route that leads to whom the policies guard."""
    every = Route(
        match=RouteMatch(PathMatch(PathKind.PREFIX, "")),
        action=DirectResponse(200),
        guards=rules_of(made, POD, 9080),
    )
    return RouteTable(name="t", virtual_hosts=(VirtualHost("h", ("*",), (every,)),))


class Told:
    """What Envoy is told of policies; its routes are one, which the policies' own words govern."""

    def __init__(self) -> None:
        self.documents: list[Any] = []

    def make(self, table: RouteTable) -> dict[str, Any]:
        made = resource(table)
        word = "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%"
        for one in (one for host in made["virtual_hosts"] for one in host["routes"]):
            one["response_headers_to_add"] = [{"header": {"key": "x-policy", "value": word}}]
            if "route" not in one and one["match"].get("prefix") == "":
                one["typed_per_filter_config"] = per_route(self.documents)
        return made


@pytest.fixture(scope="module")
def oracle(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Envoy, Told]]:
    told = Told()
    with envoy(
        checkout / ".venv/bin/envoy",
        tmp_path_factory.mktemp("envoy"),
        filters=[SAYS, *filters()],
        make=told.make,
        manager=TELLS,
    ) as running:
        yield running, told


def decide(table: tuple[Cases, CompiledRoutes], head: bytes) -> Decision | None:
    """What is decided; None where that is left to a proxy."""
    cases, compiled = table
    routed = route(compiled, head)
    if routed.verdict is not Verdict.OK or routed.route is None or routed.route in compiled.rough:
        return None
    case = cases.table.virtual_hosts[0].routes[routed.route]
    ruling = cases.rulings[routed.route] or Decision(allowed=True)
    assert isinstance(ruling, Decision)
    return None if case.beyond else ruling


@settings(
    max_examples=WORLDS,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(documents=policies(), seed=st.integers(0, 2**32))
def test_a_policy_decides_as_envoy_does(
    oracle: tuple[Envoy, Told], documents: list[Any], seed: int
) -> None:
    running, told = oracle
    told.documents = documents
    made = read(documents)
    judging = {one.action for one in made if one.judges_requests}
    others = [
        one
        for one in made
        if not one.judges_requests and (one.action is Action.DENY or one.action not in judging)
    ]
    routes = guarded(made)
    running.load(routes)
    chance = random.Random(seed)
    asked = [(requests(seed + n), chance.choice(CLIENTS)) for n in range(REQUESTS)]
    heads = [
        wire(Request(each.method, each.target, each.authority, (*each.headers, *said(client))))
        for each, client in asked
    ]
    tables = {}
    for client in {client for _, client in asked}:
        cases = split(routes, PORT, client=client.meets)
        tables[client] = cases, compile_routes(cases.table)
    for (each, client), head, answer in zip(asked, heads, running.ask(heads), strict=True):
        ours = decide(tables[client], head)
        COUNTED["left" if ours is None else "allowed" if ours.allowed else "denied"] += 1
        if ours is None:
            continue
        theirs = of_envoy(answer)
        if not others:
            assert ours == theirs, (each, client)
        else:  # the connection itself is judged where it arrives
            assert client.address is not None
            connection = Connection(
                source=client.address,
                destination=POD,
                destination_port=9080,
                identity=client.identity,
            )
            allowed = ours.allowed and connection_decided(others, connection).allowed
            assert allowed == theirs.allowed, (each, client)


@pytest.mark.parametrize("path", ["/api/{*}", "/api/{**}", "/api/{*}.json", "/{*}/v1"])
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_what_a_template_stands_for_is_what_envoy_takes(
    oracle: tuple[Envoy, Told], path: str, action: str
) -> None:
    """Characters that RFC 3986 has in no path, of which Envoy's templates take some, are the waypoint's."""
    running, told = oracle
    operation = {"operation": {"paths": [path]}}
    told.documents = [
        {"metadata": {"name": "p"}, "spec": {"action": action, "rules": [{"to": [operation]}]}}
    ]
    routes = guarded(read(told.documents))
    running.load(routes)
    cases = split(routes, PORT, client=CLIENTS[0].meets)
    compiled = cases, compile_routes(cases.table)
    words = [
        *(f"a{chr(code)}b" for code in range(0x21, 0x7F)),
        *("=", "*", "[", "]", "", "a/", "a//b", "%20", "%5B", "%5D", "%2F", "%C3%A9", "%2A", "%3D"),
    ]
    targets = [path.replace("{**}", word).replace("{*}", word) for word in words]
    heads = [wire(Request("GET", each, "shop.test", tuple(said(CLIENTS[0])))) for each in targets]
    compared = 0
    for target, head, answer in zip(targets, heads, running.ask(heads), strict=True):
        ours = decide(compiled, head)
        if ours is not None:
            assert ours == of_envoy(answer), target
            compared += 1
    assert compared > 90


def test_enough_of_it_was_compared() -> None:
    assert min(COUNTED["allowed"], COUNTED["denied"]) > 100, COUNTED
    assert COUNTED["left"] < COUNTED.total() / 5, COUNTED
