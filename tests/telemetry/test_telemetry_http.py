# SPDX-License-Identifier: Apache-2.0
"""Counts of requests as series, and what the gate tells of them as lines; without a kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cli.ctl_http import http_lines
from runtime.kernel.http_stats import Counted
from runtime.model.http import (
    Forward,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
)
from runtime.tables.enhanced_layout import RouteTaken
from runtime.tables.http_stats import (
    EMPTY,
    By,
    RouteCounts,
    RouteName,
    bounds,
    quantile,
    route_names,
)
from runtime.telemetry.directory import Directory
from runtime.telemetry.http_log import Told, escaped, line
from runtime.telemetry.http_totals import Series, Totals, service_of

REST = Series("-", "-")


def named(number: int, label: str = "r", domain: str = "shop.example:80") -> RouteName:
    return RouteName("t", "host", domain, label, 1, number)


def counted(name: RouteName, hits: int) -> Counted:
    requests = (0, 0, hits, *EMPTY.requests[3:])
    return Counted(name, RouteCounts(RouteTaken(0, 0), EMPTY._replace(requests=requests)))


def hits(totals: Totals) -> dict[Series, int]:
    return {name: sum(stat.requests) for name, stat in totals.series.items()}


def test_routes_of_one_name_are_one_series_that_only_grows():
    totals = Totals()
    totals.take([counted(named(1), 5), counted(named(2), 7)], [])
    assert hits(totals) == {Series("shop.example", "r"): 12}
    totals.take([counted(named(1), 6), counted(named(2), 1)], [])  # another's element by now
    assert hits(totals) == {Series("shop.example", "r"): 14}
    totals.take([counted(named(1), 6)], [])
    assert hits(totals) == {Series("shop.example", "r"): 14}
    totals.take([], [("unrouted", EMPTY)])
    assert hits(totals) == {REST: 0}


@given(st.lists(st.lists(st.integers(0, 5), min_size=8, max_size=8), min_size=1, max_size=10))
def test_no_request_is_lost_when_there_are_more_routes_than_series(steps: list[list[int]]) -> None:
    totals, sums = Totals(most=3), [0] * 8
    for step in steps:
        sums = [before + more for before, more in zip(sums, step, strict=True)]
        routes = [counted(named(n, label=f"r{n}"), one) for n, one in enumerate(sums, 1)]
        before = hits(totals)
        totals.take(routes, [])
        after = hits(totals)
        assert sum(after.values()) == sum(sums)
        assert all(after[name] >= count for name, count in before.items())
        assert len(after) <= 4
        assert totals.folded >= 8 - 3


@pytest.mark.parametrize(
    ("domain", "service"),
    [
        ("a.example", "a.example"),
        ("a.example:8080", "a.example"),
        ("*", "host"),
        ("", "host"),
        ("*.a.example:80", "*.a.example"),
        ("[fd00::1]:80", "[fd00::1]"),
    ],
)
def test_the_service_of_a_route(domain: str, service: str) -> None:
    assert service_of(named(1, domain=domain)) == service


def table(*routes: Route) -> RouteTable:
    return RouteTable(name="t", virtual_hosts=(VirtualHost("h", ("*",), routes),))


def test_a_route_has_its_number_wherever_it_stands_and_whatever_it_does():
    first, second, twin = (
        Route(name=name, match=RouteMatch(PathMatch(PathKind.PREFIX, path)), action=Forward(()))
        for name, path in (("", "/a"), ("rule-1", "/b"), ("", "/a"))
    )
    a, b, c = (each.number for each in route_names(table(first, second, twin)))
    assert len({a, b, c}) == 3
    assert [each.number for each in route_names(table(second, first, twin))] == [b, a, c]
    assert [each.label for each in route_names(table(first, second))] == ["prefix /a", "rule-1"]
    renamed = replace(second, name="rule-2")
    assert [each.number for each in route_names(table(first, renamed, twin))] == [a, b, c]


@given(st.lists(st.floats(1e-6, 30), min_size=1, max_size=200), st.sampled_from((0.5, 0.99)))
def test_a_quantile_is_in_the_bucket_of_the_right_one(times: list[float], share: float) -> None:
    def bucket(seconds: float) -> int:
        return min(int(seconds * 1e6).bit_length(), 25)

    buckets = [0] * 26
    for each in times:
        buckets[bucket(each)] += 1
    found = quantile(buckets, share)
    right = sorted(times)[max(0, -int(-share * len(times) // 1) - 1)]
    low, high = bounds(bucket(right))
    assert found is not None
    assert low <= found <= high
    assert quantile([0] * 26, share) is None


TOLD = (
    b"5000000000 1500000 2500000 0 200 30 400 7 99 0000000000000000000000000a000001:0 "
    b"00000000000000000000ffff0a600001:80 00000000000000000000ffff0a000002:8080 42 "
)


def test_a_line_of_the_gates():
    told = Told.of(TOLD + b"GET /a/b?secret=1 HTTP/1.1")
    assert (told.by, told.client, told.route, told.path) == (By.KERNEL, 99, 42, "/a/b")
    text = line(told, Directory(), {42: named(42, label='the "first"')}, boot_ns=0)
    assert text == (
        "accesslog: 1970-01-01 00:00:05.0025 +0000 UTC src.addr=::a00:1, src.workload=-, "
        "src.namespace=-, src.netns=7, dst.addr=10.0.0.2:8080, dst.service=10.96.0.1:80, "
        "dst.workload=-, dst.namespace=-, start_time=1970-01-01 00:00:05 +0000 UTC, "
        'direction=OUTBOUND, protocol=HTTP, method=GET, path="/a/b", status=200, '
        'route="the \\x22first\\x22", served_by=kernel, sent_bytes=30, received_bytes=400, '
        "first_byte=1.500ms, duration=2.500ms"
    )


@given(st.binary(max_size=200))
def test_whatever_a_client_sends_is_one_line_and_one_field(raw: bytes) -> None:
    assert escaped(raw).isprintable()
    assert not set(escaped(raw)) & set(' "')
    request = raw.replace(b"\n", b"")
    text = line(Told.of(TOLD + request), Directory(), {}, boot_ns=0)
    assert text.isprintable()
    assert text.count('path="') == text.count('", status=') == 1


@pytest.mark.parametrize(
    "text", [b"", b"1 2 3", TOLD.replace(b"1500000", b"x") + b"GET / HTTP/1.1"]
)
def test_what_the_gate_never_says_is_told_apart(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"fields|invalid"):
        Told.of(text)


def test_status_without_the_path_says_nothing():
    assert list(http_lines(None)) == []
