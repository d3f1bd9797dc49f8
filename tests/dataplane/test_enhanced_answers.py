# SPDX-License-Identifier: Apache-2.0
"""What is answered without an endpoint is what a real Envoy answers: status, Location, body, and its kind."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runtime.model.http import (
    Abort,
    DirectResponse,
    HeaderMatch,
    HttpPort,
    PathKind,
    PathMatch,
    RateLimit,
    Redirect,
    Route,
    RouteMatch,
    RouteTable,
    TextKind,
    TextMatch,
)
from tests.dataplane.answer_worlds import answering, port
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4, expect_shares
from tests.plan.envoy_answers import filters_wire, resource
from tests.plan.envoy_oracle import Envoy, envoy
from tests.plan.http_worlds import Maker, wire

pytestmark = pytest.mark.root
TABLES = int(os.environ.get("KMESH_ANSWER_TABLES", "40"))
REQUESTS = 30
COUNTED: Counter[str] = Counter()
Told = tuple[int, str | None, str | None, bytes]  # status, location, content type, body


@pytest.fixture(scope="module")
def oracle(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    directory = tmp_path_factory.mktemp("envoy")
    program = checkout / ".venv/bin/envoy"
    with envoy(program, directory, filters=filters_wire(port()), make=resource) as running:
        yield running


def told(raw: bytes) -> Told:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
    }
    status = int(lines[0].split(" ")[1])
    return status, fields.get("location"), fields.get("content-type"), body


def of_envoy(running: Envoy, request: bytes) -> Told:
    """On a connection that is kept: Envoy closes one a second after it has been told to."""
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(30)
        sock.connect(str(running.address))
        sock.sendall(request)
        raw = b""
        while not is_whole(raw, head_only=request.startswith(b"HEAD ")):
            more = sock.recv(1 << 16)
            assert more
            raw += more
    return told(raw)


def is_whole(raw: bytes, *, head_only: bool) -> bool:
    head, end, body = raw.partition(b"\r\n\r\n")
    length = 0 if head_only else int((head.partition(b"content-length: ")[2].split() or [b"0"])[0])
    return bool(end) and len(body) >= length


def closing_request(request: bytes) -> bytes:
    """The same request as the last of its connection."""
    return request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


def raw_of_gate(stage: Stage, request: bytes) -> bytes:
    text = closing_request(request).decode("latin-1")
    raw: str = stage.client("whole", VIP4, PORT, text, "stay")
    return raw.encode("latin-1")


def of_gate(stage: Stage, request: bytes) -> Told:
    return told(raw_of_gate(stage, request))


def agree(
    oracle: Envoy, stage: Stage, routes: RouteTable, seeds: list[int], governs: HttpPort
) -> None:
    oracle.load(routes)
    stage.ports.set_port(VIP4, PORT, routes, governs=governs)
    maker = Maker(routes)
    for seed in seeds:
        request = maker.request(seed)
        if any(name.lower() == "connection" for name, _ in request.headers):
            continue
        head = wire(request)
        raw = raw_of_gate(stage, head)
        ours, theirs = told(raw), of_envoy(oracle, head)
        if b"x-kmesh-reason: it takes a waypoint" in raw:
            COUNTED["left to a proxy"] += 1
            continue
        kind = "location" if theirs[1] else str(theirs[0])
        COUNTED[kind] += 1
        if (theirs[0], theirs[3]) == (200, b"") and theirs[1] is None and ours[0] == 200:
            continue  # forwarded here, said to be there
        assert ours == theirs, head


@pytest.fixture
def answers(stage: Stage) -> Stage:
    stage.serve("a")
    return stage


seeds_of = st.integers(0, 2**32).map(lambda seed: [seed + n for n in range(REQUESTS)])
quick = settings(
    max_examples=TABLES,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink takes many minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@quick
@given(routes=answering(), seeds=seeds_of)
def test_answers_and_redirects_are_envoys(
    oracle: Envoy, answers: Stage, routes: RouteTable, seeds: list[int]
) -> None:
    agree(oracle, answers, routes, seeds, port())


@quick
@given(routes=answering(governed=True), seeds=seeds_of)
def test_faults_and_authorization_of_routes_are_envoys(
    oracle: Envoy, answers: Stage, routes: RouteTable, seeds: list[int]
) -> None:
    agree(oracle, answers, routes, seeds, port())


def test_enough_of_it_was_compared() -> None:
    print(dict(COUNTED))
    seen = sum(COUNTED.values())
    assert COUNTED["left to a proxy"] < seen / 4
    assert COUNTED["location"] > seen / 20
    assert COUNTED["403"] > seen / 200


LOCATIONS = [
    (Redirect(), "/a?b", "a.test:80", ""),
    (Redirect(https=True), "/a", "a.test:80", ""),
    (Redirect(https=True), "/a", "a.test:443", ""),
    (Redirect(https=True), "/a", "[fd00::1]:80", ""),
    (Redirect(), "/a", "a.test:443", "X-Forwarded-Proto: HTTPS\r\n"),
    (Redirect(), "/a", "a.test:443", "x-forwarded-proto: https\r\n"),
    (Redirect(), "/a", "a.test:80", "x-forwarded-proto: foo\r\n"),
    (Redirect(), "/a", "a.test:80", "x-forwarded-proto: https\r\nx-forwarded-proto: http\r\n"),
    (Redirect(scheme="http"), "/a", "a.test:443", "x-forwarded-proto: https\r\n"),
    (Redirect(port=8080, host="h"), "/a?b=c", "a.test", ""),
    (Redirect(prefix=""), "/a/b", "a.test", ""),
]


@pytest.mark.parametrize(("action", "target", "host", "extra"), LOCATIONS)
def test_a_location_is_envoys_byte_by_byte(
    oracle: Envoy, answers: Stage, action: Redirect, target: str, host: str, extra: str
) -> None:
    match = RouteMatch(PathMatch(PathKind.PREFIX, "/a"))
    routes = table(Route(match=match, action=action))
    oracle.load(routes)
    answers.route(routes)
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode()
    ours = of_gate(answers, head)
    assert ours[1]
    assert ours == of_envoy(oracle, head)


LIMIT = RateLimit(most=3, tokens=1, interval_ms=10_000_000)


def test_a_bucket_gives_as_much_as_envoys(oracle: Envoy, answers: Stage) -> None:
    """Routes of a virtual host have buckets of their own; without tokens the answer is the same."""
    routes = table(
        replace(to("/one", "a"), rate_limit=LIMIT),
        replace(to("/two", "a"), rate_limit=replace(LIMIT, most=1, status=503)),
        to("/", "a"),
    )
    oracle.load(routes)
    answers.ports.set_port(VIP4, PORT, routes, governs=port())
    for target in ["/one", "/two", "/"] * 5:
        head = f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        ours, theirs = of_gate(answers, head), of_envoy(oracle, head)
        assert ours[0] == theirs[0], target
        if ours[0] != 200:
            assert ours == theirs


def test_a_bucket_fills_again_and_is_kept_where_routes_change(answers: Stage) -> None:
    slow = replace(LIMIT, most=1, interval_ms=1500)
    routes = table(replace(to("/", "a"), rate_limit=slow))
    answers.ports.set_port(VIP4, PORT, routes, governs=port())
    assert answers.ask(["/", "/"]) == ["a", 429]
    more = table(replace(to("/", "a"), rate_limit=slow), to("/more", "a"))
    answers.ports.set_port(VIP4, PORT, more, governs=port())
    found = [answers.ask(["/"])[0]]
    while found[-1] == 429 and len(found) < 10_000:
        found.append(answers.ask(["/"])[0])
    assert found[-1] == "a"
    assert answers.path.maps["http_buckets"].lookup is not None
    answers.route(table(to("/", "a")))
    assert list(answers.path.maps["http_buckets"].keys()) == []


def test_the_share_of_a_fault_is_kept_and_its_headers_are_asked_for(answers: Stage) -> None:
    asked = HeaderMatch("x-fault", TextMatch(TextKind.EXACT, "yes"))
    abort = Abort(status=418, numerator=30, headers=(asked,))
    answers.ports.set_port(VIP4, PORT, table(replace(to("/", "a"), abort=abort)), governs=port())

    def sample(times: int) -> Counter[str]:
        return Counter(map(str, answers.ask(["/"] * 1500 * times, headers="x-fault: yes\r\n")))

    expect_shares(sample, {"a": 70, "418": 30})
    assert set(answers.ask(["/"] * 100, headers="x-fault: no\r\n")) == {"a"}


def test_filters_of_the_port_govern_what_no_route_takes(
    checkout: Path, tmp_path: Path, answers: Stage
) -> None:
    asked = HeaderMatch("x-fault", TextMatch(TextKind.PRESENT))
    governs = port(
        abort=Abort(status=555, headers=(asked,)), rate_limit=replace(LIMIT, most=4),
    )  # fmt: skip
    routes = RouteTable(name="t", virtual_hosts=())
    answers.ports.set_port(VIP4, PORT, routes, governs=governs)
    program = checkout / ".venv/bin/envoy"
    fault, plain = (
        f"GET / HTTP/1.1\r\nHost: a\r\n{extra}\r\n".encode() for extra in ("x-fault: 1\r\n", "")
    )
    with envoy(program, tmp_path, filters=filters_wire(governs), make=resource) as running:
        # Envoy has been asked whether it is there, which cost tokens.
        theirs = {of_envoy(running, fault), of_envoy(running, plain)}
        ours = [of_gate(answers, head) for head in (fault, plain, fault, plain, plain)]
    assert [one[0] for one in ours] == [555, 404, 555, 404, 429]
    assert theirs <= set(ours)


def test_a_body_is_whole_on_a_connection_that_is_kept(answers: Stage) -> None:
    body = bytes(range(32, 127)) * 43
    direct = DirectResponse(203, body)
    answers.route(
        table(
            Route(match=RouteMatch(PathMatch(PathKind.PREFIX, "/d")), action=direct), to("/", "a")
        )
    )
    number = answers.client("connect", VIP4, PORT)
    for _ in range(5):
        assert answers.client("ask", number, "/d")[0::4] == [203, len(body)]
        assert answers.client("ask", number, "/d", {"method": "HEAD"})[0] == 203
        assert answers.client("ask", number, "/x")[:2] == [200, "a"]
