# SPDX-License-Identifier: Apache-2.0
"""Shares and ejections of a governed cluster, computed by the gate's own code at times that a test says.

What they should be is written here a second time, from what Envoy documents
(intro/arch_overview/upstream: load_balancing/priority, panic_threshold, locality_weight, outlier).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.model.http import Cluster, HttpEndpoint, OutlierDetection
from runtime.model.mesh import Locality
from tests.gate.governed import Governed, endpoint

CAUSE_5XX, CAUSE_GATEWAY, CAUSE_LOCAL, REFUSED = range(4)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Governed:
    return Governed.compile(tmp_path_factory.mktemp("govern") / "govern.so")


@st.composite
def worlds(draw: st.DrawFn) -> list[HttpEndpoint]:
    """Endpoints of up to three priorities; one locality has one weight in each of them."""
    count = draw(st.integers(1, 9))
    weights = draw(st.lists(st.integers(0, 5), min_size=9, max_size=9))
    found = []
    for number in range(count):
        priority, place = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        found.append(
            endpoint(
                number,
                weight=draw(st.integers(1, 4)),
                healthy=draw(st.booleans()),
                priority=priority,
                locality=Locality(zone=str(place)),
                locality_weight=weights[3 * priority + place],
            )
        )
    return found


def loads(levels: Sequence[tuple[int, int]], panic: int, over: int) -> tuple[list[int], list[bool]]:
    """Percent of requests for each level of (hosts, healthy ones), and which of them panic."""
    health = [min(100, over * well // hosts) if hosts else 0 for hosts, well in levels]
    total = min(100, sum(health))
    if not total and not panic:
        return [100, *[0] * (len(levels) - 1)], [False] * len(levels)
    panics = [total < 100 and Fraction(100 * well, hosts or 1) < panic for hosts, well in levels]
    if all(panics):
        everyone = sum(hosts for hosts, _ in levels)
        given = [100 * hosts // everyone for hosts, _ in levels]
        first = next(i for i, (hosts, _) in enumerate(levels) if hosts)
    else:
        given, left = [], 100
        for one in health:
            given.append(min(left, one * 100 // total))
            left -= given[-1]
        first = next(i for i, one in enumerate(health) if one)
    given[first] += 100 - sum(given)
    return given, panics


def shares(
    endpoints: Sequence[HttpEndpoint], *, panic: int, over: int, weighted: bool
) -> list[Fraction]:
    levels = [
        [one for one in endpoints if one.priority == level]
        for level in range(1 + max(one.priority for one in endpoints))
    ]
    sizes = [(len(level), sum(one.healthy for one in level)) for level in levels]
    given, panics = loads(sizes, panic, over)
    found = dict.fromkeys((one.address for one in endpoints), Fraction(0))
    for level, load, panicking in zip(levels, given, panics, strict=True):
        groups = [(level, Fraction(1))]
        if weighted and not panicking:
            groups = by_locality(level, over) or groups
        for group, weight in groups:
            used = [one for one in group if one.healthy or panicking]
            total = sum(one.weight for one in used)
            for one in used:
                part = weight / sum(each for _, each in groups)
                found[one.address] += load * part * Fraction(one.weight, total)
    return [found[one.address] for one in endpoints]


def by_locality(
    level: Sequence[HttpEndpoint], over: int
) -> list[tuple[list[HttpEndpoint], Fraction]]:
    found = []
    for place in {one.locality for one in level}:
        group = [one for one in level if one.locality == place]
        able = min(
            Fraction(1), Fraction(over * sum(one.healthy for one in group), 100 * len(group))
        )
        if able and group[0].locality_weight:
            found.append((group, able * group[0].locality_weight))
    return found


LACKING = [
    endpoint(number, healthy=number < 2, locality=Locality(zone=zone), locality_weight=weight)
    for number, (zone, weight) in enumerate((("0", 3), ("1", 2), ("1", 2)))
]


@settings(max_examples=300)
@example(endpoints=LACKING, panic=0, over=140, weighted=True)
@given(
    endpoints=worlds(),
    panic=st.sampled_from((0, 0, 30, 50, 100)),
    over=st.sampled_from((100, 140, 300)),
    weighted=st.booleans(),
)
def test_shares_are_as_envoy_documents_them(
    gate: Governed, *, endpoints: list[HttpEndpoint], panic: int, over: int, weighted: bool
) -> None:
    cluster = Cluster(
        name="c",
        panic_percent=panic,
        locality_weighted=weighted,
        outlier=OutlierDetection(),
    )
    gate.make(cluster, *endpoints, overprovisioning=over)
    expected = shares(endpoints, panic=panic, over=over, weighted=weighted)
    found = [gate.code.shim_share(index) for index in range(len(endpoints))]
    assert found == pytest.approx([float(one) for one in expected])
    picked = {gate.code.shim_pick() for _ in range(20)}
    assert picked <= ({i for i, one in enumerate(expected) if one} or {-1})


def cluster(**outlier: object) -> Cluster:
    about = {"max_ejection_percent": 100, "interval_ms": 1000, "base_ejection_ms": 4000}
    return Cluster(
        name="c",
        panic_percent=0,
        outlier=OutlierDetection(**(about | outlier)),  # type: ignore[arg-type]
    )


def out_for(gate: Governed) -> int:
    """Milliseconds until an endpoint that fails now is used again."""
    gate.answer(500)
    assert gate.is_out()
    passed = 0
    while gate.is_out():
        gate.code.shim_pass(500)
        passed += 500
    return passed


def test_the_time_out_grows_and_shrinks_again(gate: Governed) -> None:
    gate.make(cluster(consecutive_5xx=1, max_ejection_ms=14_000), endpoint(0))
    assert [out_for(gate) for _ in range(4)] == [4000, 8000, 12000, 14000]
    gate.code.shim_pass(2000)  # twice an interval without a failure
    assert out_for(gate) == 12000
    gate.code.shim_pass(60_000)
    assert out_for(gate) == 4000


def test_who_comes_back_starts_anew(gate: Governed) -> None:
    gate.make(cluster(consecutive_5xx=3, consecutive_gateway_failures=2), endpoint(0), endpoint(1))
    gate.answer(500, 500)
    gate.answer(503, 503, endpoint=1)
    assert (gate.is_out(0), gate.is_out(1)) == (False, True)
    gate.answer(503, endpoint=1)  # a response that was on its way
    assert gate.code.shim_count(CAUSE_GATEWAY) == 1
    gate.code.shim_pass(4000)
    assert not gate.is_out(1)
    gate.answer(503, endpoint=1)
    assert not gate.is_out(1)
    gate.answer(500)
    assert gate.is_out(0)
    assert gate.code.shim_count(CAUSE_5XX) == 1


@given(
    percent=st.integers(0, 100),
    count=st.integers(1, 12),
    always=st.booleans(),
    order=st.permutations(range(12)),
)
def test_never_more_than_the_share_are_out(
    gate: Governed, *, percent: int, count: int, always: bool, order: list[int]
) -> None:
    rules = cluster(consecutive_5xx=1, max_ejection_percent=percent, always_one=always)
    gate.make(rules, *map(endpoint, range(count)))
    for index in order:
        if index < count:
            gate.answer(500, endpoint=index)
    most = max(percent * count // 100, int(always))
    assert sum(gate.is_out(index) for index in range(count)) == most
    assert gate.code.shim_count(REFUSED) == count - most


@given(statuses=st.lists(st.sampled_from((200, 404, 500, 501, 502, 503, 504, 599)), max_size=40))
def test_rows_of_failures(gate: Governed, statuses: list[int]) -> None:
    gate.make(cluster(consecutive_5xx=4, consecutive_gateway_failures=3), endpoint(0))
    text = "".join("g" if one in (502, 503, 504) else "5" if one > 499 else "." for one in statuses)
    rows = "".join("x" if one in "g5" else "." for one in text)
    gate.answer(*statuses)
    assert gate.is_out() == ("ggg" in text or "xxxx" in rows)


def test_failed_connections_apart_from_responses_or_with_them(gate: Governed) -> None:
    gate.make(cluster(consecutive_5xx=2), endpoint(0))
    gate.code.shim_fail(0)
    gate.answer(500)
    assert gate.is_out()
    apart = {"split_local_failures": True, "consecutive_local_failures": 2, "consecutive_5xx": 2}
    gate.make(cluster(**apart), endpoint(0))
    gate.code.shim_fail(0)
    gate.answer(500)
    assert not gate.is_out()
    gate.code.shim_fail(0)
    assert gate.is_out()
    assert gate.code.shim_count(CAUSE_LOCAL) == 1
