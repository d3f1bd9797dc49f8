# SPDX-License-Identifier: Apache-2.0
"""What is counted is what was asked: by route, by who served, by what came of it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from runtime.kernel.http_ports import HttpPorts
from runtime.kernel.http_stats import RouteStats
from runtime.model.http import DirectResponse, PathKind, PathMatch, Route, RouteMatch, RouteTable
from runtime.tables.enhanced_layout import RouteStat
from runtime.tables.http_stats import EMPTY, By, RouteCounts
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.test_enhanced_handover import another_version
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root
_numbers = itertools.count()
ENDPOINTS = ("a", "b")


def denied(prefix: str, status: int) -> Route:
    match = RouteMatch(PathMatch(PathKind.PREFIX, prefix))
    return Route(match=match, action=DirectResponse(status=status))


@pytest.fixture
def fresh(stage: Stage) -> RouteTable:
    """Routes that were never counted before, in force."""
    stage.serve(*ENDPOINTS)
    routes = table(
        to("/a", "a"), to("/b", "b"), denied("/no", 403), to("/empty", "nobody"),
        name=f"counted-{next(_numbers)}",
    )  # fmt: skip
    stage.ports.set_cluster("nobody", [])
    stage.route(routes)
    return routes


def counts(stage: Stage) -> list[RouteCounts]:
    """Of the routes in force, in their order."""
    return [one.counts for one in stage.ports.stats.read()]


def settled(stage: Stage, hits: int) -> list[RouteCounts]:
    """The counts when so many requests are over; a client may have its response a moment before."""
    wait_for(lambda: sum(one.hits for one in counts(stage)) >= hits, f"{hits} requests counted")
    return counts(stage)


def test_every_request_is_counted_once_where_it_belongs(stage: Stage, fresh: RouteTable) -> None:
    stage.ask(["/a/1", "/b/2", "/a/3"] * 20 + ["/no/1", "/empty/2", "/empty/3"])
    a, b, no, none = settled(stage, 63)
    assert [one.hits for one in (a, b, no, none)] == [40, 20, 1, 2]
    assert a.of_class("2xx") == 40
    assert (b.of_class("2xx"), no.of_class("4xx"), none.of_class("5xx")) == (20, 1, 2)
    assert (a.codes(), no.codes(), none.codes()) == ({200: 40}, {403: 1}, {503: 2})
    # The first to each endpoint finds no connection; what the kernel sent has been answered.
    assert a.share(By.KERNEL) >= 35
    assert b.share(By.KERNEL) >= 15
    for one in (a, b):
        assert one.taken.requests == one.share(By.KERNEL)
        assert one.taken.sent == one.stat.request_bytes[By.KERNEL]
    assert no.share(By.GATE) == 1
    assert none.share(By.GATE) == 2


@pytest.mark.parametrize("where", ["kernel", "gate"])
def test_bytes_are_those_on_the_wire(stage: Stage, fresh: RouteTable, where: str) -> None:
    number = stage.client("connect", VIP4, PORT)
    stage.client("ask", number, "/a/size/0")
    (before, *_) = settled(stage, 1)
    sent = b"GET /a/size/1000 HTTP/1.1\r\nHost: x\r\n\r\n"
    if where == "gate":
        stage.client("send", number, sent[:9].decode())
        stage.client("send", number, sent[9:].decode())
    else:
        stage.client("send", number, sent.decode())
    assert stage.client("read", number)[4] == 1000
    head = (
        "HTTP/1.1 200 OK\r\nx-backend: a\r\nx-target: /a/size/1000\r\ncontent-length: 1000\r\n"
        "x-kept: yes\r\n\r\n"
    )
    (after, *_) = settled(stage, 2)
    by = By.KERNEL if where == "kernel" else By.GATE
    assert after.share(by) == before.share(by) + 1
    assert after.stat.request_bytes[by] - before.stat.request_bytes[by] == len(sent)
    assert after.stat.response_bytes[by] - before.stat.response_bytes[by] == len(head) + 1000


def test_times_are_those_of_the_endpoint(stage: Stage, fresh: RouteTable) -> None:
    stage.ask(["/a/x", "/a/slow/0.3", "/a/x"])
    (a, *_) = settled(stage, 3)
    for buckets, ns in ((a.stat.head, a.stat.head_ns), (a.stat.end, a.stat.end_ns)):
        assert sum(buckets) == 3
        assert sum(buckets[19:]) >= 1  # of 0.26 s on
        assert ns >= 300_000_000


def test_counts_go_on_when_the_table_is_another(stage: Stage, fresh: RouteTable) -> None:
    stage.ask(["/a/1"] * 10 + ["/b/1"] * 5)
    settled(stage, 15)
    a, b, *_ = fresh.virtual_hosts[0].routes
    moved = (to("/new", "b"), b, to("/a", "b"))  # /a leads elsewhere, two have gone
    assert a.match == moved[2].match
    stage.route(table(*moved, name=fresh.name))
    stage.ask(["/a/1"] * 3 + ["/new/1"] * 2)
    wait_for(lambda: sum(one.hits for one in counts(stage)) == 20, "20 requests counted")
    hits = {
        (one.name.index if one.name else 0): one.counts.hits for one in stage.ports.stats.read()
    }
    assert hits == {1: 2, 2: 5, 3: 13}


def test_another_daemon_finds_the_counts(stage: Stage, fresh: RouteTable) -> None:
    stage.ask(["/a/1"] * 4)
    before = settled(stage, 4)
    stage.ports = HttpPorts(stage.path.maps)
    assert not counts(stage)  # it does not know yet whose they are
    stage.route(fresh)
    assert [one.stat for one in counts(stage)] == [one.stat for one in before]
    stage.ask(["/a/1"] * 4)
    assert settled(stage, 8)[0].hits == 8


def test_another_gate_counts_on(stage: Stage, fresh: RouteTable, tmp_path: Path) -> None:
    number = stage.client("connect", VIP4, PORT)
    for _ in range(5):
        assert stage.client("ask", number, "/a/1")[0] == 200
    busy = stage.client("connect", VIP4, PORT)
    stage.client("send", busy, "GET /b/slow/1 HTTP/1.1\r\nHost: x\r\n\r\n")
    another_version(stage, tmp_path)
    stage.start_gate()
    assert stage.client("read", busy)[0] == 200
    for _ in range(5):
        assert stage.client("ask", number, "/a/1")[0] == 200
    a, b, *_ = settled(stage, 11)
    assert (a.of_class("2xx"), b.of_class("2xx")) == (10, 1)


@pytest.mark.parametrize("where", ["kernel", "gate"])
def test_a_client_that_leaves_is_counted_without_a_code(
    stage: Stage, fresh: RouteTable, where: str
) -> None:
    number = stage.client("connect", VIP4, PORT)
    stage.client("ask", number, "/a/1")
    sent = "GET /a/slow/5 HTTP/1.1\r\nHost: x\r\n\r\n"
    for part in (sent[:9], sent[9:]) if where == "gate" else (sent,):
        stage.client("send", number, part)
    if where == "gate":
        wait_for(lambda: stage.status()["busy"] == 1, "the gate has it")
    stage.client("abort", number)
    (a, *_) = settled(stage, 2)
    by = By.KERNEL if where == "kernel" else By.GATE
    assert a.requests(by)["none"] == a.of_class("none") == 1


def test_what_no_route_takes_is_counted_apart(stage: Stage, fresh: RouteTable) -> None:
    before, refused = stage.ports.stats.unrouted(), stage.ports.stats.verdicts()
    assert stage.ask(["/elsewhere"]) == [404]
    answer = stage.client("whole", VIP4, PORT, "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
    assert answer.split(" ")[1] in {"400", "503"}
    wait_for(lambda: stage.ports.stats.unrouted().hits == before.hits + 2, "both are counted")
    after = stage.ports.stats.verdicts()
    assert {name: after[name] - refused[name] for name in after} == {
        **dict.fromkeys(refused, 0),
        "twice": 1,
    }
    assert stage.ports.stats.unrouted().codes()[404] >= before.codes().get(404, 0) + 1


def test_more_routes_than_elements_are_counted_together(stage: Stage) -> None:
    now = [0.0]
    stats = RouteStats(stage.path.maps, clock=lambda: now[0])
    room = stage.path.maps["route_stats"].max_entries
    many = table(*(to(f"/{n}", "a") for n in range(room + 10)), name="many")
    given = stats.assign(many)
    own = [index for index in given if index]
    assert len(own) == len(set(own)) >= room - 200  # others have been given out before
    stats.hold(1, given)
    assert stats.folded == given.count(0) > 0
    # When they have gone their elements are others', but not at once.
    stats.keep([])
    some = table(to("/new", "a"), name="later")
    assert stats.assign(some) == [0]
    now[0] += 200
    (index,) = stats.assign(some)
    assert index
    value = stage.path.maps["route_stats"].lookup(index.to_bytes(4, "little"))
    assert RouteStat.unpack(value or b"").name
    stats.keep([])
    # Elements are the module's: those of this test must be free for the next.
    for key, _ in list(stage.path.maps["route_stats"].items(chunk=2048)):
        stage.path.maps["route_stats"].update(key, EMPTY.pack())
    stage.ports = HttpPorts(stage.path.maps)
