# SPDX-License-Identifier: Apache-2.0
"""What people read of a plan."""

from __future__ import annotations

import pytest

from runtime.model.http import (
    DirectResponse,
    Forward,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    Redirect,
    RouteMatch,
    TextKind,
    TextMatch,
    WeightedCluster,
)
from runtime.plan.ability import Ability
from runtime.plan.planner import make_plan
from runtime.plan.report import route_rows
from runtime.plan.words import action_words, match_words
from tests.plan.http_model import bookstore, bookstore_mesh

ANY = PathMatch(PathKind.PREFIX, "/")
EXACT = TextMatch(TextKind.EXACT, "x")


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (RouteMatch(ANY), "everything"),
        (RouteMatch(PathMatch(PathKind.EXACT, "/a", ignore_case=True)), "path is /a (any case)"),
        (RouteMatch(PathMatch(PathKind.SEPARATED_PREFIX, "/a")), "path is /a or below /a/"),
        (RouteMatch(PathMatch(PathKind.REGEX, "/a+")), "path matches /a+"),
        (
            RouteMatch(PathMatch(PathKind.PREFIX, "/a"), (HeaderMatch(":method", EXACT),)),
            "path begins with /a, method is x",
        ),
        (
            RouteMatch(ANY, (HeaderMatch("a", EXACT, invert=True, missing_as_empty=True),)),
            "header a is not x (missing counts as empty)",
        ),
        (RouteMatch(ANY, (HeaderMatch("a", TextMatch(TextKind.PRESENT)),)), "header a is there"),
        (RouteMatch(ANY, (), (QueryMatch("q", TextMatch(TextKind.EXACT)),)), 'query q is ""'),
    ],
)
def test_matches(match, words):
    assert match_words(match) == words


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Forward((WeightedCluster("a"),)), "to a"),
        (Forward((WeightedCluster("a", 1), WeightedCluster("b", 3))), "to 25 % a, 75 % b"),
        (Redirect(status=308, https=True, port=8443), "redirect 308 to https://…:8443"),
        (Redirect(host="h", path="/p"), "redirect 301 to h/p"),
        (Redirect(), "redirect 301 to the same"),
        (DirectResponse(403), "answer 403"),
    ],
)
def test_actions(action, words):
    assert action_words(action) == words


def test_rows_say_for_each_route_of_each_service_where_it_runs_and_why():
    services, workloads = bookstore_mesh()
    rows = route_rows(make_plan(bookstore(), ability=Ability(), workloads=workloads), services)
    assert [row["service"] for row in rows] == sorted(row["service"] for row in rows)
    (slow,) = [row for row in rows if row["route"] == "slow"]
    assert slow["port"] == 9080
    assert slow["match"] == "header x-chaos is delay"
    assert (slow["place"], slow["able"]) == ("waypoint", False)
    assert slow["why"] == ["fault.delay: 2 s for 100 % of the requests"]
    assert {row["port"] for row in rows if "partner" in row["service"]} == {80}
    assert not [row for row in rows if "orders-db" in row["service"] or row["port"] == 443]


def test_rows_say_that_the_path_does_not_run():
    services, _ = bookstore_mesh()
    ability = Ability(serves=False, why_not="the enhanced path does not run")
    rows = route_rows(make_plan(bookstore(), ability=ability), services)
    assert {row["place"] for row in rows} == {"waypoint"}
    able = [row for row in rows if row["able"]]
    assert able
    for row in able:
        assert row["why"] == ["the enhanced path does not run", "could run in the kernel"]
