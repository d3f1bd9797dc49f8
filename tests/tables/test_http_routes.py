# SPDX-License-Identifier: Apache-2.0
"""Route tables as bytes: scale, limits, and that the numbers are those of the C code."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from builder.layout import TARGETS, render
from runtime.model.http import (
    DirectResponse,
    Forward,
    HashKind,
    HashPolicy,
    HeaderMatch,
    HttpPort,
    PathKind,
    PathMatch,
    QueryMatch,
    Route,
    RouteMatch,
    RouteTable,
    TextKind,
    TextMatch,
    VirtualHost,
    WeightedCluster,
)
from runtime.plan import walk
from runtime.plan.reference import Request, choose
from runtime.tables import http_graph, http_numbers, http_routes, http_shapes
from runtime.tables.describe import describe
from runtime.tables.http_conditions import recognised
from runtime.tables.http_numbers import Place, Seen, Verdict
from runtime.tables.http_routes import TableTooLargeError, compile_routes

ANY = TextMatch(TextKind.PRESENT)
PORT = HttpPort(listener="l", address=None, port=80, table="t", normalize_path=True)


def route(path: str, kind: PathKind = PathKind.PREFIX, *headers: HeaderMatch) -> Route:
    return Route(match=RouteMatch(PathMatch(kind, path), headers), action=DirectResponse(200))


def table(*routes: Route, name: str = "t") -> RouteTable:
    return RouteTable(name=name, virtual_hosts=(VirtualHost("all", ("*",), routes),))


def get(target: str, *lines: str, host: str = "a") -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


def test_numbers_are_those_of_the_header(checkout: Path) -> None:
    header = checkout / "bpf/include/kmesh/http/types.h"
    told = subprocess.run(
        ["gcc", "-E", "-dM", "-I", checkout / "bpf/include", header],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    defined = dict(re.findall(r"^#define KMESH_HTTP_(\w+) (\w+)$", told, re.MULTILINE))
    for name in ("HEAD_MAX", "FIELDS_MAX", "STOPS", "READ", "MOVES", "END", "ABSENT", "DECIDED", "NO_ROUTE", "NO_VHOST",
                 "NO_IDEA", "SLOTS", "PLACES"):  # fmt: skip
        assert getattr(http_numbers, name) == int(defined[name], 0), name
    assert {place.name: place.value for place in Place} == {
        place.name: int(defined[place.name]) for place in Place
    }
    assert {bit.name: bit.value for bit in Seen} == {
        bit.name: int(defined[f"SEEN_{bit.name}"]) for bit in Seen
    }
    verdicts = dict(re.findall(r"KMESH_HTTP_(\w+) = (\d+)", header.read_text()))
    # Of a step, and never of a head: the counters have no place for it.
    assert int(verdicts.pop("MORE")) >= int(verdicts.pop("VERDICTS")) > max(Verdict)
    assert {name: int(number) for name, number in verdicts.items()} == Verdict.__members__
    assert http_numbers.ONCE == 0xFFFFFFFE | 1 << Seen.CHUNKED | 1 << Seen.CONNECTION


def test_the_committed_layout_is_what_the_objects_say(objects: Path) -> None:
    found = describe((objects / "match").glob("*.bpf.o"))
    assert render(found) == TARGETS["match"].read_text(), "run `make generate`"


def test_the_same_table_gives_the_same_bytes() -> None:
    made = table(
        route("/a"),
        route("/b.*", PathKind.REGEX),
        route("/", PathKind.PREFIX, HeaderMatch("x", ANY)),
    )
    assert compile_routes(made) == compile_routes(made)
    assert compile_routes(made).set != compile_routes(table(route("/b"))).set


@pytest.mark.timeout(60)
def test_ten_thousand_routes_cost_no_more_steps_than_ten() -> None:
    few, many = (
        compile_routes(table(*(route(f"/api/v1/item-{number:05}/x") for number in range(count))))
        for count in (10, 10_000)
    )
    for number in (0, 7, 9, 10, 9_999):
        head = get(f"/api/v1/item-{number:05}/x/more")
        found = walk.route(many, head)
        assert found.route == number
        assert found.steps == walk.route(few, head).steps
    assert walk.route(many, get("/api/v1/item-10000/x")).route is None


@pytest.mark.timeout(60)
def test_a_thousand_virtual_hosts() -> None:
    hosts = tuple(
        VirtualHost(f"s{number}", (f"s{number}", f"s{number}.ns.svc.cluster.local", f"*.s{number}.test"),
                    tuple(route(f"/v{index}") for index in range(5)))
        for number in range(1000)
    )  # fmt: skip
    compiled = compile_routes(RouteTable(name="t", virtual_hosts=hosts))
    for number in (0, 1, 500, 999):
        for host in (f"s{number}", f"S{number}.ns.svc.cluster.local:80", f"x.y.s{number}.test"):
            assert walk.route(compiled, get("/v3", host=host)).route == number * 5 + 3
    assert not walk.route(compiled, get("/v3", host="s1000")).found_host


@pytest.mark.timeout(60)
def test_ten_thousand_routes_by_a_header() -> None:
    routes = [route("/", PathKind.PREFIX, HeaderMatch("x-user", TextMatch(TextKind.EXACT, f"user-{number}")))
              for number in range(10_000)]  # fmt: skip
    compiled = compile_routes(table(*routes, route("/")))
    assert walk.route(compiled, get("/", "X-User: user-77")).route == 77
    assert walk.route(compiled, get("/", "X-User: user-x")).route == 10_000


def test_routes_that_ask_the_same_of_a_method_may_ask_for_more_besides() -> None:
    """Nodes of one shape are made once; whether the first route is taken there is part of the shape."""
    exact, gets = PathKind.EXACT, HeaderMatch(":method", TextMatch(TextKind.EXACT, "GET"))
    of_a = [route("/a", exact, gets), route("/a", exact)]
    of_b = [route("/b", exact, gets, HeaderMatch("x", ANY)), route("/b", exact)]
    for first, second, wanted in ((of_a, of_b, [0, 2, 3]), (of_b, of_a, [2, 0, 1])):
        compiled = compile_routes(table(*first, *second))
        heads = (get("/a"), get("/b", "X: 1"), get("/b"))
        assert [walk.route(compiled, head).route for head in heads] == wanted


def test_an_expression_that_cannot_be_one_takes_what_it_might() -> None:
    compiled = compile_routes(table(route("/b"), route(r"/a/b\b.*", PathKind.REGEX), route("/")))
    assert compiled.rough.keys() == {1}
    assert "word boundaries" in compiled.rough[1]
    assert [walk.route(compiled, get(path)).route for path in ("/b", "/a/bx", "/a", "/c")] == [
        0,
        1,
        2,
        2,
    ]


def test_a_match_is_recognised_by_what_can_be_compiled_of_it() -> None:
    header, parameter = HeaderMatch("x", ANY), QueryMatch("q", ANY)
    whole = RouteMatch(PathMatch(PathKind.REGEX, "/a.*"), (header,), (parameter,))
    assert recognised(whole) == (whole, ())
    unknown = HeaderMatch("y", TextMatch(TextKind.REGEX, r"a\b"))
    odd = RouteMatch(
        PathMatch(PathKind.REGEX, r"/a/b\b.*"),
        (unknown, header),
        (QueryMatch("a&b", ANY), parameter),
    )
    found, reasons = recognised(odd)
    assert found == RouteMatch(PathMatch(PathKind.PREFIX, "/a/b"), (header,), (parameter,))
    assert len(reasons) == 3
    assert compile_routes(table(Route(match=found, action=DirectResponse(200)))).rough == {}


def test_expressions_that_are_too_large_together_are_left_out_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_shapes, "_MOST_BY_EXPRESSIONS", 2000)
    compiled = compile_routes(
        table(route("/a/.*a.{12}", PathKind.REGEX), route("/b[0-9]+", PathKind.REGEX), route("/"))
    )
    assert compiled.rough.keys() == {0}
    assert "more than" in compiled.rough[0]
    assert [walk.route(compiled, get(path)).route for path in ("/a/x", "/b1", "/b", "/a")] == [
        0,
        1,
        2,
        2,
    ]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", [TextKind.EXACT, TextKind.CONTAINS])
def test_routes_that_cannot_be_told_apart_are_never_confused(kind: TextKind) -> None:
    """Of so many combinations there is no room for all: some requests are left undecided."""
    chance = random.Random(5)
    texts = [one + other for one in "abc" for other in "abc"]
    asked = [
        route("/", PathKind.PREFIX, *(
            HeaderMatch(f"h{name}", TextMatch(kind, chance.choice(texts)), chance.random() < 0.2, missing_as_empty=True)
            for name in chance.sample(range(8), 3)
        ))
        for _ in range(150)
    ]  # fmt: skip
    made = RouteTable(
        name="t",
        virtual_hosts=(
            VirtualHost("all", ("*",), tuple(asked)),
            VirtualHost("b", ("b",), (route("/"),)),
        ),
    )
    compiled = compile_routes(made)
    assert compiled.undecided
    assert walk.route(compiled, get("/", host="b")).route == 150
    verdicts: Counter[Verdict] = Counter()
    for _ in range(300):
        fields = tuple(
            (f"h{name}", chance.choice(texts)) for name in range(8) if chance.random() < 0.7
        )
        found = walk.route(compiled, get("/", *(f"{name}: {text}" for name, text in fields)))
        verdicts[found.verdict] += 1
        if found.verdict is Verdict.OK:
            choice = choose(made, Request("GET", "/", "a", fields), full_match=lambda *_: False)
            assert found.route == choice.route
        else:
            assert found.verdict is Verdict.UNDECIDED
    assert verdicts[Verdict.OK]


def test_a_table_that_is_too_large_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_graph, "MOST_STATES", 50)
    with pytest.raises(TableTooLargeError, match="route table big: more than"):
        compile_routes(table(*(route(f"/{number}/x") for number in range(100)), name="big"))
    monkeypatch.undo()
    monkeypatch.setattr(http_routes, "MOST_CELLS", 300)
    with pytest.raises(TableTooLargeError, match="300"):
        compile_routes(table(*(route(f"/{number}/x") for number in range(100))))


def test_of_more_names_than_there_are_places_the_rarest_go() -> None:
    often = HeaderMatch("often", ANY)
    asked = [
        route(f"/{number}", PathKind.PREFIX, often, HeaderMatch(f"h{number:02}", ANY))
        for number in range(20)
    ]
    compiled = compile_routes(table(*asked), wanted=[(False, "first")])
    assert len(compiled.slots) == 16
    assert {(False, "first"), (False, "often")} < set(compiled.slots)
    assert compiled.rough.keys() == set(range(14, 20))
    assert "more than 16" in compiled.rough[19]


def test_long_names_that_do_not_fit_are_left_out() -> None:
    asked = [
        route(f"/{number}", PathKind.PREFIX, HeaderMatch(f"{number:02}" + "x" * 60, ANY))
        for number in range(12)
    ]
    compiled = compile_routes(table(*asked))
    assert 0 < len(compiled.slots) < 12
    assert len(compiled.rough) == 12 - len(compiled.slots)


@pytest.mark.parametrize(
    "name",
    [
        "x-request-id",
        "x-forwarded-for",
        "x-envoy-retry-on",
        "content-length",
        "connection",
        "te",
        ":scheme",
        "X",
    ],
)
def test_headers_that_only_a_proxy_can_judge_are_left_to_it(name: str) -> None:
    compiled = compile_routes(
        table(route("/a", PathKind.PREFIX, HeaderMatch(name, ANY)), route("/"))
    )
    assert compiled.rough.keys() == {0}
    assert repr(name) in compiled.rough[0]
    assert walk.route(compiled, get("/a")).route == 0


def test_values_that_choose_an_endpoint_are_noted() -> None:
    policies = (HashPolicy(kind=HashKind.HEADER, name="x-user"), HashPolicy(kind=HashKind.COOKIE, name="s"),
                HashPolicy(kind=HashKind.QUERY, name="id"), HashPolicy(kind=HashKind.SOURCE_IP))  # fmt: skip
    forward = Forward((WeightedCluster("c"),), policies)
    made = Route(
        match=RouteMatch(PathMatch(PathKind.PREFIX, "/"), query=(QueryMatch("p", ANY),)),
        action=forward,
    )
    compiled = compile_routes(table(made))
    head = get("/a?id=7&p", "X-USER: \t joe ", "Cookie: s=1; t=2")
    found = walk.route(compiled, head)
    assert found.head is not None
    noted = walk.values(found.head, head)
    wanted = {
        (False, "x-user"): b"joe",
        (False, "cookie"): b"s=1; t=2",
        (True, "id"): b"7",
        (True, "p"): b"",
    }
    assert {name: noted[place] for name, place in compiled.slots.items()} == wanted
    assert noted[Place.TARGET] == b"/a?id=7&p"
    assert noted[Place.PATH] == b"/a"


def test_what_takes_more_than_handing_on_is_seen() -> None:
    compiled = compile_routes(table(route("/")))
    lines = {"Connection: close": Seen.CLOSE, "Connection: , Keep-Alive": Seen.KEEP_ALIVE, "Upgrade: h2c": Seen.UPGRADE,
             "TRANSFER-ENCODING: Chunked": Seen.CHUNKED, "Expect: 100-continue": Seen.EXPECT, "TE: trailers": Seen.HOP,
             "X-Envoy-Max-Retries: 3": Seen.ENVOY, "connection: te": Seen.HOP, "Connection: upgrade": Seen.UPGRADE}  # fmt: skip
    for line, bit in lines.items():
        found = walk.route(compiled, get("/", line))
        assert found.head is not None
        assert found.head.seen >> bit & 1, line
    plain = walk.route(compiled, get("/", "X-Env: a", "Connections: close", "Content-Length: 0012"))
    assert plain.head is not None
    assert plain.head.content_length == 12
    assert plain.head.seen >> 32 == 0


@pytest.mark.parametrize("path", ["/a/../b", "/a/.", "/a%2Db", "/%7e"])
def test_what_envoy_would_rewrite_is_told_from_what_is_no_path(path: str) -> None:
    told = walk.route(compile_routes(table(route("/")), port=PORT), get(path)).verdict
    assert told in (Verdict.DOT_SEGMENT, Verdict.ESCAPE)
    as_is = compile_routes(table(route("/")), port=replace(PORT, normalize_path=False))
    assert walk.route(as_is, get(path)).verdict is Verdict.BAD_TARGET


def test_two_slashes_are_refused_where_envoy_would_merge_them() -> None:
    made = table(route("/"))
    assert walk.route(compile_routes(made), get("//a")).verdict is Verdict.OK
    merging = compile_routes(made, port=replace(PORT, merge_slashes=True))
    assert walk.route(merging, get("/a//b")).verdict is Verdict.BAD_TARGET
    assert walk.route(merging, get("/a/b?//")).verdict is Verdict.OK
