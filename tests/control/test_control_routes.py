# SPDX-License-Identifier: Apache-2.0
"""What is told of routes, from what the controller knows."""

from __future__ import annotations

import pytest

from runtime.control.dump import dump
from runtime.control.http_standing import Standing
from runtime.control.http_unserved import Unserved
from runtime.control.routes import describe_routes
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.model.http_picture import HttpChange
from runtime.source.update import Update
from tests.plan.http_model import bookstore, bookstore_mesh


@pytest.fixture
def view() -> View:
    """The recorded mesh."""
    services, workloads = bookstore_mesh()
    http = bookstore()
    change = HttpChange(
        complete=True,
        listeners=http.listeners,
        tables=http.tables,
        clusters=http.clusters,
        endpoints=http.endpoints,
    )
    made = View()
    made.take(Update(services=tuple(services), workloads=tuple(workloads.values()), complete=True))
    made.take(Update(http=change))
    return made


def test_before_http_is_followed_it_says_so():
    answer = describe_routes(View(), why_not="it does not run", service=None)
    assert (answer["known"], answer["routes"]) == (False, [])
    assert "--routes" in answer["note"]


@pytest.mark.parametrize(
    "name",
    [
        "reviews",
        "bookstore/reviews",
        "reviews.bookstore",
        "reviews.bookstore.svc.cluster.local",
        "bookstore/reviews.bookstore.svc.cluster.local",
    ],
)
def test_a_service_may_be_named_in_several_ways(view, name):
    answer = describe_routes(view, why_not="", service=name)
    assert len(answer["routes"]) == 9
    assert answer["serves"]


def test_a_name_that_nobody_has(view):
    with pytest.raises(KmeshError, match="no service 'x'"):
        describe_routes(view, why_not="", service="x")


def test_a_service_without_http_says_so(view):
    answer = describe_routes(view, why_not="", service="orders-db")
    assert answer["routes"] == []
    assert answer["note"] == "no service here has HTTP routes"


def test_a_change_of_http_replaces_and_removes(view):
    view.take(Update(http=HttpChange(tables={"9080": None})))
    (row,) = describe_routes(view, why_not="", service="reviews")["routes"]
    assert row["place"] == "waypoint"
    assert row["why"] == ["route table 9080: it has not come yet"]
    assert view.services
    view.take(Update(http=HttpChange(complete=True)))
    assert describe_routes(view, why_not="", service="reviews")["routes"] == []


def test_what_was_written_is_told_and_not_what_was_planned(view):
    planned = describe_routes(view, why_not="", service="reviews")["routes"]
    (first, second) = [row for row in planned if row["place"] == "kernel"][:2]
    at = [(row["virtual_host"], row["index"]) for row in (first, second)]
    key = first["listener"], first["table"]
    standing = Standing(waypoint={at[0]: "too many names"}, partly={at[1]: "not all told apart"})
    told = describe_routes(view, why_not="", service="reviews", standings={key: standing})["routes"]
    changed = [row for row, before in zip(told, planned, strict=True) if row != before]
    assert [(row["place"], row["why"]) for row in changed] == [
        ("waypoint", ["too many names"]),
        ("kernel", ["not all told apart"]),
    ]
    shut = Standing(shut=True, trouble="no room")
    told = describe_routes(view, why_not="", service="reviews", standings={key: shut})["routes"]
    assert all(row["place"] == "waypoint" and "no room" in row["why"] for row in told)


def test_a_route_that_nobody_serves_is_logged_once(caplog):
    unserved, key = Unserved(), ("l", "t")
    waypoint = {("all", number): f"timeout: {number}s\nx" for number in range(1, 15)}
    for _ in range(2):
        unserved.tell({key: Standing(waypoint=waypoint)}, {key})
    assert len(caplog.messages) == 11, "no more than a few at a time"
    assert caplog.messages[0].startswith("route 1 of all in route table t gets 503")
    assert caplog.messages[0].endswith("timeout: 1s?x")
    assert "and 4 more routes" in caplog.messages[-1]
    caplog.clear()
    unserved.tell({key: Standing(waypoint=waypoint)}, ())  # there is a waypoint now
    assert not caplog.messages
    unserved.tell({key: Standing(waypoint={("all", 1): "timeout: 9s"})}, {key})
    assert len(caplog.messages) == 1


def test_all_of_it_can_be_dumped(view):
    dumped = dump(view)
    assert [each["resource"] for each in dumped["route_tables"]] == ["80", "9080", "9090"]
    assert len(dumped["clusters"]) == 16
    (listener,) = [each for each in dumped["listeners"] if each["resource"] == "0.0.0.0_9080"]
    assert listener["ports"][0]["steps"] == ["FAULT"]
    assert listener["ports"][0]["filters"] == sorted(listener["ports"][0]["filters"])
