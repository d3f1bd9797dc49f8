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
