# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.bench.matching`: what reading and routing a head costs in this kernel.

The least of many messages each, as interruptions only ever add to it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from runtime.model.http import (
    DirectResponse,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
)
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from tests.plan.kernel_matcher import KernelMatcher

CHECKOUT = Path(__file__).resolve().parents[2]
MESSAGES = 2000
ROUTES = (10, 100, 1000, 10_000)
SIZES = (100, 400, 1000, 8000)


def _table(count: int) -> RouteTable:
    routes = tuple(
        Route(
            match=RouteMatch(PathMatch(PathKind.PREFIX, f"/api/v1/item-{number:05}/")),
            action=DirectResponse(200),
        )
        for number in range(count)
    )
    return RouteTable(name="t", virtual_hosts=(VirtualHost("all", ("bench.test",), routes),))


def _head(size: int, number: int) -> bytes:
    start = f"GET /api/v1/item-{number:05}/x HTTP/1.1\r\nHost: bench.test\r\nX-Fill: "
    return start.encode() + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


def _least(matcher: KernelMatcher, tables: CompiledRoutes, head: bytes) -> tuple[int, int, int]:
    """Nanoseconds to read and to route, and steps of the walk."""
    matcher.use(tables)
    before = matcher.trial()
    least = [1 << 60, 1 << 60]
    for _ in range(MESSAGES):
        matcher.send(head)
        after = matcher.trial()
        least[0] = min(least[0], after.parse_ns - before.parse_ns)
        least[1] = min(least[1], after.match_ns - before.match_ns)
        before = after
    return least[0], least[1], matcher.route(head).steps


def main() -> int:
    """Print the figures."""
    with KernelMatcher(CHECKOUT / "build/bpf") as matcher:
        print("routes  compiled  size      steps  read ns  route ns")
        for count in ROUTES:
            started = time.process_time()
            tables = compile_routes(_table(count))
            spent = time.process_time() - started
            read, route, steps = _least(matcher, tables, _head(400, count - 1))
            kilobytes = len(tables.graph) >> 10
            print(f"{count:6}  {spent:6.2f} s  {kilobytes:5} KiB {steps:6}  {read:7}  {route:8}")
        tables = compile_routes(_table(10))
        print("\nbytes   read ns  ns a byte")
        for size in SIZES:
            read, _, _ = _least(matcher, tables, _head(size, 5))
            print(f"{size:5}  {read:8}  {read / size:9.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
