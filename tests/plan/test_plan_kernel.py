# SPDX-License-Identifier: Apache-2.0
"""In the kernel, on a real socket, heads are taken for what the library takes them for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.model.http import RouteTable
from runtime.plan import walk
from runtime.tables.http_numbers import FIELDS_MAX, HEAD_MAX, Verdict
from runtime.tables.http_routes import compile_routes
from tests.plan.http_worlds import Maker, tables, wire
from tests.plan.kernel_matcher import KernelMatcher
from tests.plan.smuggling import CORPUS

pytestmark = pytest.mark.root

EMPTY = RouteTable(name="empty")


@pytest.fixture(scope="module")
def kernel(objects: Path) -> Iterator[KernelMatcher]:
    with KernelMatcher(objects) as running:
        yield running


@settings(
    max_examples=25, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(table=tables(), seed=st.integers(0, 2**32))
def test_routes_are_the_same(kernel: KernelMatcher, table: RouteTable, seed: int) -> None:
    compiled = compile_routes(table)
    kernel.use(compiled)
    for index in range(40):
        head = wire(Maker(table).request(seed + index))
        assert kernel.route(head) == walk.route(compiled, head)


@pytest.mark.parametrize("head", CORPUS, ids=repr)
def test_refusals_are_the_same(kernel: KernelMatcher, head: bytes) -> None:
    compiled = compile_routes(EMPTY)
    kernel.use(compiled)
    assert kernel.route(head) == walk.route(compiled, head)


def test_a_head_of_the_greatest_length_is_read(kernel: KernelMatcher) -> None:
    compiled = compile_routes(EMPTY)
    kernel.use(compiled)
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    for size in (HEAD_MAX - 1, HEAD_MAX, HEAD_MAX + 1, 3 * HEAD_MAX):
        head = start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"
        wanted = Verdict.OK if size <= HEAD_MAX else Verdict.TOO_LONG
        found = kernel.route(head)
        assert found.verdict is wanted
        assert found == walk.route(compiled, head)


@pytest.mark.parametrize(
    ("lines", "wanted"), [(FIELDS_MAX, Verdict.OK), (FIELDS_MAX + 1, Verdict.MANY_FIELDS)]
)
def test_a_head_of_the_most_lines_is_read(
    kernel: KernelMatcher, lines: int, wanted: Verdict
) -> None:
    compiled = compile_routes(EMPTY)
    kernel.use(compiled)
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (lines - 1) + b"\r\n"
    found = kernel.route(head)
    assert found.verdict is wanted
    assert found == walk.route(compiled, head)


def test_a_head_in_two_messages_is_not_whole(kernel: KernelMatcher) -> None:
    kernel.use(compile_routes(EMPTY))
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for cut in range(1, len(head)):
        assert kernel.route(head[:cut]).verdict is Verdict.INCOMPLETE
        kernel.send(head[cut:])


def test_tables_that_are_gone_route_nothing(kernel: KernelMatcher) -> None:
    kernel.use(compile_routes(EMPTY))
    kernel.drop_tables()
    assert kernel.route(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").verdict is Verdict.NO_TABLE
