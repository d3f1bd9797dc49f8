# SPDX-License-Identifier: Apache-2.0
"""What is told of routes is what the kernel's rows say, also where the plan could not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from runtime.control.explain_request import HttpQuestion, explain_request
from runtime.control.http import HttpControl
from runtime.control.http_standing import summed
from runtime.control.routes import describe_routes
from runtime.control.view import View
from runtime.kernel.http_tables import HttpTables
from runtime.model.http import (
    AllOf,
    Anything,
    Cluster,
    Endpoints,
    Forward,
    HashKind,
    HashPolicy,
    HeaderMatch,
    HttpEndpoint,
    HttpPort,
    Listener,
    PathKind,
    PathMatch,
    QueryMatch,
    Rbac,
    RbacPolicy,
    Route,
    RouteMatch,
    RouteTable,
    Step,
    TextKind,
    TextMatch,
    WeightedCluster,
)
from runtime.model.http_picture import HttpChange
from runtime.model.policy import Action
from runtime.plan.ability import ability
from runtime.source.update import Update
from runtime.tables import http_graph, http_shapes
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4
from tests.tables.tables_model import service

pytestmark = pytest.mark.root

ANY = TextMatch(TextKind.PRESENT)


class Brought:
    """A table in the kernel, brought there as a daemon does it."""

    def __init__(self, stage: Stage, routes: RouteTable, **port: Any) -> None:
        self.stage, self.view = stage, View()
        at = stage.backend("serve", "127.0.0.1", "a")
        endpoint = HttpEndpoint(address=ip_address("127.0.0.1"), port=at)
        governed = HttpPort(
            listener="l", address=ip_address(VIP4), port=PORT, table=routes.name, **port
        )
        http = HttpChange(
            listeners={"l": Listener(name="l", ports=(governed,))},
            tables={routes.name: routes},
            clusters={"a": Cluster(name="a", endpoints_name="a")},
            endpoints={"a": Endpoints(name="a", endpoints=(endpoint,))},
            complete=True,
        )
        update = Update(services=(service("s", VIP4),), complete=True, http=http)
        self.view.take(update)
        self.control = HttpControl(stage.ports, ability=ability())
        self.failed = dict(self.control.program(update, self.view))

    def told(self) -> list[Mapping[str, Any]]:
        """Rows of `kmeshctl routes`."""
        answer = describe_routes(
            self.view, why_not="", service=None, standings=self.control.standings
        )
        return list(answer["routes"])

    def explained(self, target: str, header: str = "") -> str:
        head = f"GET {target} HTTP/1.1\r\nHost: a.example\r\n{header}\r\n"
        question = HttpQuestion(address=ip_address(VIP4), port=PORT, head=head.encode())
        answer = explain_request(question, HttpTables(self.stage.path.maps), routes={}, clusters={})
        return str(answer["does"])

    def check(self, index: int, target: str, header: str = "") -> str:
        """Have a request tell the place and the reason that all others tell of its route; the reason."""
        row = self.told()[index]
        number = self.stage.client("connect", VIP4, PORT)
        status, said = self.stage.client("ask", number, target, {"headers": header})[:2]
        if row["place"] == "kernel":
            assert (status, said, row["why"]) == (200, "a", [])
            assert self.explained(target, header).startswith("to an endpoint")
            return ""
        why = "; ".join(row["why"])
        assert (status, said) == (503, f"it takes a waypoint, and there is none: {why}")
        assert self.explained(target, header) == f"at the waypoint ({why})"
        return why


def by_path(kind: PathKind, path: str, *headers: str, **extra: Any) -> Route:
    asked = tuple(HeaderMatch(name, ANY) for name in headers)
    action = extra.pop("action", Forward((WeightedCluster("a"),)))
    return Route(match=RouteMatch(PathMatch(kind, path), asked), action=action, **extra)


def test_expressions_that_are_too_large_together(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_shapes, "_MOST_BY_EXPRESSIONS", 2000)
    large = by_path(PathKind.REGEX, "/a/.*a.{12}")
    brought = Brought(stage, table(large, to("/plain", "a")))
    assert brought.failed == {}
    assert "together with the others" in brought.check(0, "/a/x")
    assert brought.check(1, "/plain") == ""
    facts = summed(brought.control.standings.values())
    assert (facts["routes"], facts["partly"], facts["tables"]) == (1, 0, 0)
    assert "together with the others" in facts["reasons"][0]["why"]


def test_names_that_only_policies_ask_for(stage: Stage) -> None:
    """The plan counts what routes ask for; what rules ask for comes on top."""
    asked = tuple(HeaderMatch(f"p{number}", ANY) for number in range(8))
    policy = RbacPolicy(name="p", permissions=(AllOf(asked),), principals=(Anything(),))
    rules = Rbac(action=Action.DENY, policies=(policy,))
    routes = [by_path(PathKind.PREFIX, f"/r{n:02}", f"h{n:02}") for n in range(12)]
    brought = Brought(stage, table(*routes, to("/plain", "a")), rbac=(rules,), steps=(Step.RBAC,))
    places = [row["place"] for row in brought.told()]
    assert places.count("waypoint") == 4
    for index, place in enumerate(places[:-1]):
        why = brought.check(index, f"/r{index:02}", f"h{index:02}: x\r\n")
        assert ("more than 16 are asked for" in why) == (place == "waypoint")
    assert brought.check(12, "/plain") == ""


def test_headers_and_parameters_share_their_places(stage: Stage) -> None:
    routes = [by_path(PathKind.PREFIX, f"/r{n:02}", f"h{n:02}") for n in range(15)]
    rest = to("/q", "a")
    query = replace(
        rest, match=replace(rest.match, query=(QueryMatch("q0", ANY), QueryMatch("q1", ANY)))
    )
    brought = Brought(stage, table(*routes, query, to("/plain", "a")))
    assert [row["place"] for row in brought.told()].count("waypoint") == 1
    assert "16 names of headers and query parameters" in brought.check(15, "/q?q0=1&q1=1")
    assert brought.check(0, "/r00", "h00: x\r\n") == brought.check(16, "/plain") == ""


def test_more_hash_policies_than_fit(stage: Stage) -> None:
    policies = tuple(HashPolicy(kind=HashKind.HEADER, name=f"x{n}") for n in range(5))
    hashed = by_path(PathKind.PREFIX, "/h", action=Forward((WeightedCluster("a"),), policies))
    brought = Brought(stage, table(hashed, to("/plain", "a")))
    assert brought.check(0, "/h") == "hash_policy: more than 4"
    assert brought.check(1, "/plain") == ""


def test_a_table_that_is_too_large(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_graph, "MOST_STATES", 50)
    brought = Brought(stage, table(*(to(f"/{number}/x", "a") for number in range(100))))
    (failed,) = brought.failed.values()
    rows = brought.told()
    assert {row["place"] for row in rows} == {"waypoint"}
    assert all(row["why"] == [failed] for row in rows)
    number = stage.client("connect", VIP4, PORT)
    status, said = stage.client("ask", number, "/1/x")[:2]
    assert (status, said.partition(": more than 50")[1]) == (503, ": more than 50")
