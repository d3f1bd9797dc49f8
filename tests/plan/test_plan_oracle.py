# SPDX-License-Identifier: Apache-2.0
"""Envoy, the reference and the kernel's matcher take the same route for the same request."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import re2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.model.http import RouteTable
from runtime.plan import walk
from runtime.plan.reference import Choice, Request, choose
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from tests.plan.envoy_oracle import Answer, Envoy, envoy
from tests.plan.http_worlds import Maker, tables, wire
from tests.plan.native import Matcher

TABLES = int(os.environ.get("KMESH_ORACLE_TABLES", "170"))
REQUESTS = 120  # a table: more than 20,000 in all
COUNTED: Counter[str] = Counter()


def full_match(pattern: str, text: str) -> bool:
    return re2.fullmatch(pattern, text) is not None


@pytest.fixture(scope="module")
def oracle(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    with envoy(checkout / ".venv/bin/envoy", tmp_path_factory.mktemp("envoy")) as running:
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


def test_most_of_it_was_decided() -> None:
    """A matcher that refuses all would pass the test above."""
    total = sum(COUNTED.values()) - COUNTED["left to a proxy"]
    print(dict(COUNTED))
    assert total >= 20_000 or TABLES < 170
    assert COUNTED["OK"] - COUNTED["left to a proxy"] > 0.8 * total
