# SPDX-License-Identifier: Apache-2.0
"""Rows of routes and clusters: what they say, and that nothing that is not understood is forwarded."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model.http import (
    Abort,
    Action,
    DirectResponse,
    Forward,
    HashKind,
    HashPolicy,
    PathKind,
    PathMatch,
    RateLimit,
    Redirect,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
    WeightedCluster,
)
from runtime.tables.enhanced_layout import Cluster, Endpoint, SlotKey
from runtime.tables.enhanced_layout import Route as Row
from runtime.tables.http_answers import ANSWER as ANSWERS
from runtime.tables.http_answers import DATE, MOST_ANSWERS
from runtime.tables.http_ports import (
    ANSWER,
    FORWARD,
    GOVERNED,
    MOST_CLUSTERS,
    WAYPOINT,
    Target,
    cluster_number,
    cluster_rows,
    mapped,
    route_rows,
)

MATCH = RouteMatch(PathMatch(PathKind.PREFIX, "/"))
A = Forward((WeightedCluster("a", 1),))


def kind_of(route: Route, **extra: object) -> tuple[Row, dict[int, str]]:
    table = RouteTable(name="t", virtual_hosts=(VirtualHost("v", ("*",), (route,)),))
    rows = route_rows(table, extra.get("rough", {}))  # type: ignore[arg-type]
    return Row.unpack(rows.rows[0]), dict(rows.waypoint)


def test_a_choice_that_the_gate_has_a_part_in_is_all_the_gates() -> None:
    action = Forward((WeightedCluster("a", 1), WeightedCluster("b", 3), WeightedCluster("c", 0)))
    table = RouteTable(
        name="t",
        virtual_hosts=(VirtualHost("v", ("*",), (Route(match=MATCH, action=action),)),),
    )
    for gate_chooses, kind in (({"b"}, GOVERNED), ({"c"}, FORWARD), ((), FORWARD)):
        rows = route_rows(table, {}, gate_chooses=gate_chooses)
        assert Row.unpack(rows.rows[0]).kind == kind


def test_a_forward_says_its_clusters_and_their_shares() -> None:
    action = Forward((WeightedCluster("a", 1), WeightedCluster("b", 3)))
    row, why = kind_of(Route(match=MATCH, action=action))
    assert (row.kind, row.total, why) == (FORWARD, 4, {})
    assert row.clusters[:3] == (cluster_number("a"), cluster_number("b"), 0)
    assert row.weights[:3] == (1, 3, 0)


def test_a_bare_status_is_answered() -> None:
    row, why = kind_of(Route(match=MATCH, action=DirectResponse(403)))
    assert (row.kind, row.status, why) == (ANSWER, 403, {})


BEYOND: list[tuple[Action, dict[str, object]]] = [
    (A, {"beyond": ("timeout: 3s",)}),
    (A, {"abort": Abort(status=500)}),
    (A, {"rate_limit": RateLimit(most=1, tokens=1, interval_ms=1000)}),
    (Forward(A.clusters, (HashPolicy(kind=HashKind.HEADER, name="x"),)), {}),
    (Forward((WeightedCluster("a", 0),)), {}),
    (Forward(tuple(WeightedCluster(str(n), 1) for n in range(MOST_CLUSTERS + 1))), {}),
    (Redirect(host="else\nwhere"), {}),
    (Redirect(path="/" * 5000), {}),
    (DirectResponse(200, b"x" * 4097), {}),
    (DirectResponse(204, b"x"), {}),
]


@pytest.mark.parametrize(("action", "extra"), BEYOND)
def test_what_the_gate_cannot_do_is_a_waypoints_and_says_why(
    action: Action, extra: dict[str, object]
) -> None:
    row, why = kind_of(Route(match=MATCH, action=action, **extra))  # type: ignore[arg-type]
    assert row.kind == WAYPOINT
    assert why[0]


def test_a_route_that_is_told_roughly_is_a_waypoints() -> None:
    row, why = kind_of(Route(match=MATCH, action=A), rough={0: "too large"})
    assert (row.kind, why) == (WAYPOINT, {0: "too large"})


def test_tables_with_the_same_rows_share_a_number_and_others_do_not() -> None:
    def number(*routes: Route) -> int:
        table = RouteTable(name="t", virtual_hosts=(VirtualHost("v", ("*",), routes),))
        return route_rows(table, {}).number

    one, other = Route(match=MATCH, action=A), Route(match=MATCH, action=DirectResponse(404))
    assert number(one, other) == number(one, other)
    assert len({number(one), number(other), number(one, other), number(other, one)}) == 4


targets = st.lists(
    st.builds(
        Target,
        st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]),
        st.integers(1, 3),
        st.integers(1, 5000),
    ),
    max_size=12,
)


@given(targets)
def test_a_cluster_holds_every_endpoint_once_with_all_of_its_weight(
    given_ones: list[Target],
) -> None:
    wanted: Counter[tuple[bytes, int]] = Counter()
    for one in given_ones:
        wanted[mapped(ip_address(str(one.address))), one.port] += one.weight
    if len(set(wanted.values())) == 1:
        wanted = Counter(dict.fromkeys(wanted, 1))  # they weigh the same
    value, slots = cluster_rows("c", given_ones)
    cluster = Cluster.unpack(value)
    held = [(SlotKey.unpack(key), Endpoint.unpack(slot)) for key, slot in slots.items()]
    assert {(e.address, int.from_bytes(e.port, "big")): e.weight for _, e in held} == wanted
    assert cluster.total == sum(cluster.weights) == sum(wanted.values())
    for kind in range(16):
        here = [(key, e) for key, e in held if key.slot >> 24 == kind]
        assert sorted(key.slot & 0xFFFFFF for key, _ in here) == list(range(cluster.counts[kind]))
        assert sum(e.weight for _, e in here) == cluster.weights[kind]
        assert all(1 << kind <= e.weight < 2 << kind for _, e in here)


def _answer_of(route: Route) -> bytes:
    """What the kernel answers a route's requests with, as the response that it is; nothing if it does not."""
    rows = route_rows(
        RouteTable(name="t", virtual_hosts=(VirtualHost("v", ("*",), (route,)),)),
        {},
    )
    number = Row.unpack(rows.rows[0]).answer
    if not number:
        return b""
    size, date, status, text = ANSWERS.unpack_from(rows.answers, number * ANSWERS.size)
    assert text[date : date + DATE] == bytes(DATE)
    assert int(text.split(b" ")[1]) == status
    return bytes(text[:date] + text[date + DATE : size])


def test_an_answer_that_is_always_the_same_is_the_kernels() -> None:
    found = _answer_of(Route(match=MATCH, action=DirectResponse(403, b"no")))
    assert found == (
        b"HTTP/1.1 403 Forbidden\r\ndate: \r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\r\nno"
    )
    empty = _answer_of(Route(match=MATCH, action=DirectResponse(204)))
    assert empty == b"HTTP/1.1 204 No Content\r\ndate: \r\n\r\n"


@pytest.mark.parametrize(
    "route",
    [
        Route(match=MATCH, action=DirectResponse(403, b"x" * 1000)),
        Route(match=MATCH, action=DirectResponse(301)),
        Route(match=MATCH, action=DirectResponse(201)),
        Route(match=MATCH, action=Redirect(https=True)),
        Route(match=MATCH, action=A),
    ],
)
def test_an_answer_that_depends_on_the_request_or_is_long_is_the_gates(route: Route) -> None:
    assert _answer_of(route) == b""


def test_no_route_is_the_first_answer_of_every_table() -> None:
    rows = route_rows(RouteTable(name="t", virtual_hosts=()), {})
    size, _, status, text = ANSWERS.unpack_from(rows.answers)
    assert (status, len(rows.answers)) == (404, ANSWERS.size)
    assert text[:size].endswith(b"\r\ncontent-length: 0\r\n\r\n")


def test_each_answer_is_there_once_and_there_is_a_bound() -> None:
    routes = [
        Route(match=MATCH, action=DirectResponse(403, str(number % 2000).encode()))
        for number in range(3000)
    ]
    rows = route_rows(
        RouteTable(name="t", virtual_hosts=(VirtualHost("v", ("*",), tuple(routes)),)), {}
    )
    numbers = [Row.unpack(row).answer for row in rows.rows]
    assert len(rows.answers) == MOST_ANSWERS * ANSWERS.size
    assert numbers[:MOST_ANSWERS] == [*range(1, MOST_ANSWERS), 0]
    assert numbers[2000:2010] == numbers[:10]
