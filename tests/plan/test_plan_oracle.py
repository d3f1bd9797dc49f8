# SPDX-License-Identifier: Apache-2.0
"""Envoy, the reference and the kernel's matcher take the same route for the same request."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import re2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.model.http import DirectResponse, RouteTable
from runtime.plan import walk
from runtime.plan.reference import Choice, Request, choose
from runtime.source.envoy.messages import ROUTES
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from tests.plan.envoy_oracle import Answer, Envoy, configuration, envoy
from tests.plan.http_worlds import Maker, tables, wire
from tests.plan.native import Matcher
from tests.source.envoy.wire import recorded

TABLES = int(os.environ.get("KMESH_ORACLE_TABLES", "170"))
REQUESTS = 120  # a table: more than 20,000 in all
COUNTED: Counter[str] = Counter()


def full_match(pattern: str, text: str) -> bool:
    return re2.fullmatch(pattern, text) is not None


def answered(table: RouteTable) -> dict[str, Any]:
    """A table's resource where each route answers by itself: nobody serves the clusters here."""
    hosts = tuple(
        replace(host, routes=tuple(replace(one, action=DirectResponse(200)) for one in host.routes))
        for host in table.virtual_hosts
    )
    return configuration(replace(table, virtual_hosts=hosts))


@pytest.fixture(scope="module")
def oracle(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    program, directory = checkout / ".venv/bin/envoy", tmp_path_factory.mktemp("envoy")
    with envoy(program, directory, make=answered) as running:
        yield running


def number_of(table: RouteTable, choice: Choice) -> int | None:
    if choice.host is None or choice.route is None:
        return None
    return sum(len(host.routes) for host in table.virtual_hosts[: choice.host]) + choice.route


def agree(
    table: RouteTable,
    request: Request,
    answer: Answer,
    routed: walk.Routed,
    compiled: CompiledRoutes,
) -> None:
    """All three say the same; what the matcher does not decide, it must say so."""
    choice = choose(table, request, full_match=full_match)
    said = "" if choice.route is None else f"{choice.host}/{choice.route}"
    assert (answer.status, answer.route) == (200 if said else 404, said), "the reference is wrong"
    COUNTED[routed.verdict.name] += 1
    if routed.verdict is not Verdict.OK:
        return
    if routed.route in compiled.rough:
        COUNTED["left to a proxy"] += 1
        return  # it may be another's: a proxy judges
    assert routed.route == number_of(table, choice)
    assert routed.found_host == (choice.host is not None)


@pytest.mark.slow
@settings(
    max_examples=TABLES, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(table=tables(), seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=3))
def test_envoy_the_reference_and_the_matcher_choose_alike(
    oracle: Envoy, matcher: Matcher, table: RouteTable, seeds: list[int]
) -> None:
    compiled = compile_routes(table)
    maker = Maker(table)
    requests = [
        maker.request(seed + index) for seed in seeds for index in range(REQUESTS // len(seeds))
    ]
    heads = [wire(request) for request in requests]
    oracle.load(table)
    for request, head, answer in zip(requests, heads, oracle.ask(heads), strict=True):
        routed = matcher.route(compiled, head)
        agree(table, request, answer, routed, compiled)
        assert walk.route(compiled, head) == routed


def test_what_istiod_sent_is_routed_alike(oracle: Envoy, matcher: Matcher) -> None:
    found = recorded(ROUTES)
    assert len(found) > 1
    for table in found.values():
        compiled = compile_routes(table)
        assert compiled.rough == {}
        requests = [Maker(table).request(seed) for seed in range(200)]
        heads = [wire(request) for request in requests]
        oracle.load(table)
        for request, head, answer in zip(requests, heads, oracle.ask(heads), strict=True):
            agree(table, request, answer, matcher.route(compiled, head), compiled)


def test_most_of_it_was_decided() -> None:
    """A matcher that refuses all would pass the test above."""
    total = sum(COUNTED.values()) - COUNTED["left to a proxy"]
    print(dict(COUNTED))
    assert total >= 20_000 or TABLES < 170
    assert COUNTED["OK"] - COUNTED["left to a proxy"] > 0.8 * total
