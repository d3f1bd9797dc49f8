# SPDX-License-Identifier: Apache-2.0
"""What is ambiguous is refused; what is not refused has the same end and the same route to Envoy."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.model.http import (
    DirectResponse,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
)
from runtime.plan import walk
from runtime.tables.http_numbers import HEAD_MAX, Seen, Verdict
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from tests.plan.envoy_oracle import Envoy, envoy
from tests.plan.native import Matcher, under_sanitizers
from tests.plan.smuggling import CORPUS, GOOD, head


def route(kind: PathKind, value: str) -> Route:
    return Route(match=RouteMatch(PathMatch(kind, value)), action=DirectResponse(200))


TABLE = RouteTable(
    name="t",
    virtual_hosts=(
        VirtualHost("next", ("next.test",), (route(PathKind.PREFIX, "/"),)),
        VirtualHost(
            "a",
            ("a", "b", "*.a", "a.*", "[::1]"),
            (
                route(PathKind.EXACT, "/a/b"),
                route(PathKind.SEPARATED_PREFIX, "/b"),
                route(PathKind.REGEX, "/[a-c]/.*"),
                route(PathKind.PREFIX, "/"),
            ),
        ),
        VirtualHost("rest", ("*",), (route(PathKind.PREFIX, "/"),)),
    ),
)
NEXT = b"GET / HTTP/1.1\r\nHost: next.test\r\n\r\n"
SEEDS = [
    GOOD,
    head(b"Content-Length: 5", b"Accept: */*", first=b"POST /a/b?x=1&y HTTP/1.1"),
    head(b"Transfer-Encoding: chunked", b"X-B: c", first=b"PUT /b/c HTTP/1.1", host=b"Host: b:80"),
    head(
        b"Connection: keep-alive", b"User-Agent: x", first=b"GET /c/%20 HTTP/1.1", host=b"host: x.a"
    ),
    head(b"Content-Length: 0", host=b"Host: [::1]:8080", first=b"DELETE /;a=b HTTP/1.1"),
]
PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b"\x00", b"\x0b", b"\x80", b"/", b"..", b"%2e", b"%2F",
    b"?", b"#", b"Host: b\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"5", b"0",
    b"HTTP/1.1", b"chunked", b"Connection: close\r\n", b"x", b"-", b";", b"@", b"[", b"]", b"=",
]  # fmt: skip


@pytest.fixture(scope="module")
def compiled() -> CompiledRoutes:
    return compile_routes(TABLE)


@pytest.fixture(scope="module")
def oracle(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    with envoy(checkout / ".venv/bin/envoy", tmp_path_factory.mktemp("envoy")) as running:
        running.load(TABLE)
        yield running


@pytest.mark.parametrize("data", CORPUS, ids=repr)
def test_what_is_ambiguous_is_refused(
    matcher: Matcher, compiled: CompiledRoutes, data: bytes
) -> None:
    found = matcher.route(compiled, data)
    assert found.verdict not in {Verdict.OK, Verdict.INCOMPLETE, Verdict.NO_TABLE}
    assert walk.route(compiled, data) == found


def test_what_is_not_ambiguous_is_not(matcher: Matcher, compiled: CompiledRoutes) -> None:
    assert [matcher.route(compiled, seed).verdict for seed in SEEDS] == [Verdict.OK] * len(SEEDS)


def test_each_beginning_of_a_head_is_incomplete(matcher: Matcher, compiled: CompiledRoutes) -> None:
    for seed in SEEDS:
        for size in range(len(seed)):
            assert matcher.route(compiled, seed[:size]).verdict is Verdict.INCOMPLETE
        with_more = matcher.route(compiled, seed + b"\x00more")
        assert with_more.head is not None
        assert with_more.head.length == len(seed)


def mutated(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at:at] = chance.choice(PIECES)
            case 1:
                del data[at : at + chance.randint(1, 3)]
            case 2:
                data[at] = chance.randrange(256)
            case 3:
                other = chance.randrange(len(data))
                data[at:at] = data[other : other + chance.randint(1, 20)]
    return bytes(data)


def body_of(found: walk.Routed) -> bytes:
    """A body as the head announces it, as the matcher has read it."""
    assert found.head is not None
    if found.head.seen >> Seen.CHUNKED & 1:
        return b"3\r\nGET\r\n0\r\n\r\n"
    return b"x" * found.head.content_length


@pytest.mark.slow
def test_mutated_heads_are_refused_or_mean_the_same_to_envoy(
    oracle: Envoy, matcher: Matcher, compiled: CompiledRoutes
) -> None:
    """The request after it is answered as such: both have seen the same end of head and body."""
    chance = random.Random(7)
    names = [f"{number}/{index}" for number, host in enumerate(TABLE.virtual_hosts)
             for index, _ in enumerate(host.routes)]  # fmt: skip
    compared = 0
    for _ in range(150_000):
        data = mutated(chance)
        found = matcher.route(compiled, data)
        assert walk.route(compiled, data) == found
        if found.verdict is not Verdict.OK or found.head is None:
            continue
        if found.head.content_length > 100 or found.head.seen >> Seen.EXPECT & 1:
            continue
        assert data[: found.head.length].endswith(b"\r\n\r\n")
        wanted = "" if found.route is None else names[found.route]
        request = data[: found.head.length] + body_of(found)
        first = oracle.ask([request])[0]
        assert (first.status, first.route) == (200 if wanted else 404, wanted), data
        if not first.closed:
            [second] = oracle.ask([NEXT])
            assert second.route == "0/0", data
        compared += 1
    print(f"{compared} of 150000 were routed")
    assert compared > 8000


def test_nothing_outside_of_the_input_is_read(
    matcher: Matcher, compiled: CompiledRoutes, tmp_path: Path
) -> None:
    chance = random.Random(11)
    inputs = [mutated(chance) for _ in range(5000)]
    inputs += [seed[:size] for seed in SEEDS for size in range(len(seed))]
    inputs += [b"", b"GET /" + b"a" * 2 * HEAD_MAX, chance.randbytes(2 * HEAD_MAX)]
    inputs += [chance.randbytes(chance.randrange(100)) for _ in range(2000)]
    for data, (verdict, number) in zip(
        inputs, under_sanitizers(tmp_path, compiled, inputs), strict=True
    ):
        found = matcher.route(compiled, data)
        assert found.verdict == verdict
        if found.route is not None:
            assert found.route == number
