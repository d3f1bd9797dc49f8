# SPDX-License-Identifier: Apache-2.0
"""What is explained from the kernel's tables is what requests through the kernel meet."""

from __future__ import annotations

import io
import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from runtime.cli.ctl import kmeshctl
from runtime.control.explain_request import (
    HttpQuestion,
    agrees,
    explain_request,
    request_head,
)
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.kernel.http_tables import HttpTables, open_http_tables
from runtime.launch.http_explain import explain_http
from runtime.launch.http_seen import HttpSeen
from runtime.launch.http_try import From, TryError
from runtime.launch.managed import Managed
from runtime.model.http import (
    Anything,
    Condition,
    DirectResponse,
    Forward,
    HeaderMatch,
    HttpPort,
    PathIs,
    PathKind,
    PathMatch,
    PrincipalIs,
    QueryMatch,
    Rbac,
    RbacPolicy,
    Route,
    RouteMatch,
    RouteTable,
    Step,
    TextKind,
    TextMatch,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.mesh import NetworkAddress, Service, ServicePort
from runtime.model.policy import Action
from runtime.server.http import Reply, Request, serve_unix
from runtime.source.update import Update
from runtime.tables.http_ports import cluster_number
from runtime.telemetry.accesslog import AccessLog
from runtime.telemetry.directory import Directory
from tests.dataplane.enhanced_stage import PORT, Stage, to
from tests.dataplane.world import VIP4

pytestmark = pytest.mark.root
NAMES = {cluster_number(name): name for name in ("a", "b")}


def route(name: str, match: RouteMatch, cluster: str) -> Route:
    return Route(name=name, match=match, action=Forward((WeightedCluster(cluster, 1),)))


def prefix(text: str) -> PathMatch:
    return PathMatch(PathKind.PREFIX, text)


ROUTES = RouteTable(
    name="explained",
    virtual_hosts=(
        VirtualHost(
            "shop",
            ("shop.example", "*.shop.example"),
            (
                route(
                    "beta",
                    RouteMatch(
                        prefix("/"),
                        headers=(HeaderMatch("x-beta", TextMatch(TextKind.EXACT, "yes")),),
                    ),
                    "b",
                ),
                route(
                    "asked",
                    RouteMatch(
                        prefix("/a"), query=(QueryMatch("v", TextMatch(TextKind.EXACT, "2")),)
                    ),
                    "b",
                ),
                to("/a", "a", name="plain"),
                Route(
                    name="denied",
                    match=RouteMatch(PathMatch(PathKind.EXACT, "/no")),
                    action=DirectResponse(status=403),
                ),
                to("/both", ("a", 1), ("b", 3), name="both"),
                to("/far", "a", name="far", beyond=("timeout: 3s",)),
            ),
        ),
        VirtualHost("rest", ("other.example",), (to("/x", "a", name="other"),)),
    ),
)


@pytest.fixture
def seen(stage: Stage) -> Iterator[HttpSeen]:
    stage.serve("a", "b")
    stage.route(ROUTES)
    log = AccessLog(Directory(), stream=io.StringIO())
    made = HttpSeen(Directory(), log)
    made.attach(
        stage.ports.stats,
        passed=stage.path.gate_counters,
        gate=stage.place.socket,
        ruling_of=stage.ports.ruling_of,
    )
    reader, over = made._log, threading.Event()
    assert reader is not None

    def read() -> None:
        while not over.wait(0.02):
            reader.read()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join()
        made.close()
        log.close()


def explained(stage: Stage, seen: HttpSeen, head: bytes, port: int = PORT) -> Any:
    question = HttpQuestion(address=ip_address(VIP4), port=port, head=head)
    return explain_request(
        question, HttpTables(stage.path.maps), routes=seen.routes(), clusters=NAMES
    )


def head(target: str, *headers: str, method: str = "GET") -> bytes:
    return request_head(method, target, headers, host="shop.example", port=PORT)


def test_each_part_of_an_answer(stage: Stage, seen: HttpSeen) -> None:
    answer = explained(stage, seen, head("/both/1"))
    assert answer["route"]["name"] == "both"
    assert (answer["route"]["virtual_host"], answer["route"]["index"]) == ("shop", 5)
    assert [(one["name"], one["share_percent"]) for one in answer["clusters"]] == [
        ("a", 25.0),
        ("b", 75.0),
    ]
    assert all(len(one["endpoints"]) == 1 for one in answer["clusters"])
    assert explained(stage, seen, head("/no"))["status"] == 403
    assert explained(stage, seen, head("/far"))["does"] == "at the waypoint (timeout: 3s)"
    assert explained(stage, seen, head("/far/x", "x-beta: yes"))["route"]["name"] == "beta"
    assert "no route of its virtual host" in explained(stage, seen, head("/zzz"))["does"]
    elsewhere = explained(stage, seen, head("/a", "Host: nobody.example"))
    assert "no virtual host" in elsewhere["does"]
    twice = explained(stage, seen, head("/a", "Host: a", "Host: b"))
    assert (twice["verdict"], twice["route"]) == ("twice", None)
    with pytest.raises(KmeshError, match="routes no HTTP"):
        explained(stage, seen, head("/a"), port=81)


def test_the_pinned_maps_alone_answer_the_same(stage: Stage, seen: HttpSeen) -> None:
    question = HttpQuestion(address=ip_address(VIP4), port=PORT, head=head("/a/1?v=2"))
    with open_http_tables(stage.pins) as tables:
        answer = explain_request(question, tables, routes={}, clusters={})
    full = explained(stage, seen, head("/a/1?v=2"))
    assert answer["route"]["counter"] == full["route"]["counter"]
    assert [one["cluster"] for one in answer["clusters"]] == [
        one["cluster"] for one in full["clusters"]
    ]


def test_explained_and_live_agree_for_generated_requests(stage: Stage, seen: HttpSeen) -> None:
    draw = random.Random(20261125)
    place = From(netns=stage.world.netns, cgroup=stage.cgroup)
    served = set()
    stage.ask(["/a/0"], host="shop.example")  # the kernel has a connection to a then
    for _ in range(12):
        target = draw.choice(
            ("/a", "/a/1", "/both", "/no/../a", "/no", "/x", "/far", "/none", "/%61")
        )
        target += draw.choice(("", "?v=2", "?v=3&w", "?w=1&v=2"))
        headers = draw.choice(((), ("x-beta: yes",), ("X-Beta: no",), ("Host: x.shop.example",)))
        if draw.random() < 0.2:
            headers = ("Host: other.example",)
        request = head(target, *headers)
        answer = explained(stage, seen, request)
        live = seen.send(request, address=VIP4, port=PORT, place=place)
        assert agrees(answer, live) == [], (request, answer, live)
        served.add(live["served_by"])
    # The kernel takes a connection's first request only if the gate has accepted it by then.
    assert "gate" in served
    assert served <= {"kernel", "gate"}


def test_what_does_not_agree_is_told(stage: Stage, seen: HttpSeen) -> None:
    answer = explained(stage, seen, head("/a"))
    place = From(netns=stage.world.netns, cgroup=stage.cgroup)
    live = seen.send(head("/both"), address=VIP4, port=PORT, place=place)
    assert agrees(answer, live)[0] == "the request took the route 'both', not 'plain'"


def test_one_that_cannot_be_sent_says_why(stage: Stage, seen: HttpSeen) -> None:
    place = From(netns=stage.world.netns, cgroup=stage.cgroup)
    with pytest.raises(TryError, match="refused"):
        seen.send(head("/a"), address="127.0.0.1", port=1, place=place)


class FakeManaged:
    """Who is managed on the stage."""

    def __init__(self, stage: Stage) -> None:
        self.cgroups = [str(stage.cgroup)]
        self._netns = stage.world.netns

    def namespaces(self) -> list[Path]:
        return [Path("/proc/self/ns/net"), self._netns]


@pytest.fixture
def asked(stage: Stage, seen: HttpSeen, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """`kmeshctl explain` of a daemon that is there as far as this question goes."""
    view = View()
    address = NetworkAddress(ip_address(VIP4))
    shop = Service(
        name="shop",
        namespace="web",
        hostname="shop.example",
        addresses=(address,),
        ports=(ServicePort(service_port=PORT),),
    )
    view.take(Update(services=(shop,), complete=True))

    def explain(request: Request) -> Reply:
        tables, managed = HttpTables(stage.path.maps), cast("Managed", FakeManaged(stage))
        return Reply(explain_http(request.body, tables, view=view, seen=seen, managed=managed))

    server = serve_unix(tmp_path / "kmesh.sock", {("POST", "/explain"): explain})
    try:
        yield lambda *words: CliRunner().invoke(
            kmeshctl, ["explain", "--run-dir", str(tmp_path), "--service", *words]
        )
    finally:
        server.close()


def test_kmeshctl_explains_a_request_and_sends_it_when_told(
    stage: Stage, asked: Callable[..., Result]
) -> None:
    hits = stage.ports.stats.unrouted().hits + sum(
        one.counts.hits for one in stage.ports.stats.read()
    )
    text = asked("web/shop", "--", "GET", "/a/1", "-H", "x-beta: yes").output
    assert "route:       beta, 1 of virtual host shop" in text
    assert "to an endpoint" in text
    assert "nothing was sent" in text
    after = sum(one.counts.hits for one in stage.ports.stats.read())
    assert stage.ports.stats.unrouted().hits + after == hits
    text = asked("shop", "--send", "-H", "x-beta: no", "--", "get", "/a/1").output
    assert "sending one request, GET /a/1, to shop" in text
    assert "route:       plain, 3 of virtual host shop" in text
    assert "status 200 from 127.0.0.1:" in text
    assert "the live path chose as computed" in text
    answer = json.loads(asked("shop", "--output", "json", "--", "GET", "/no").output)
    assert (answer["route"]["name"], answer["status"], answer["live"]) == ("denied", 403, None)


def guard(name: str, *, write: str = "POST") -> HttpPort:
    """A port at which one policy denies some requests, and another allows the rest."""
    method = HeaderMatch(":method", TextMatch(TextKind.EXACT, write))

    def rules(action: Action, name: str, asked: Condition) -> Rbac:
        policy = RbacPolicy(name=name, permissions=(asked,), principals=(Anything(),))
        return Rbac(action=action, policies=(policy,))

    return HttpPort(
        listener="l", address=None, port=PORT, table="explained", steps=(Step.RBAC,),
        rbac=(
            rules(Action.DENY, f"ns[web]-policy[{name}]-rule[1]", method),
            rules(Action.ALLOW, "readers", PathIs(TextMatch(TextKind.PREFIX, "/a"))),
        ),
    )  # fmt: skip


def test_kmeshctl_names_the_policy_that_decides(
    stage: Stage, seen: HttpSeen, asked: Callable[..., Result]
) -> None:
    stage.ports.set_port(VIP4, PORT, ROUTES, governs=guard("no-writes"))
    text = asked("shop", "--", "POST", "/a/1").output
    assert "policy:      denied by web/no-writes, rule 1" in text
    assert "status 403" in text
    assert "route:       plain, 3 of virtual host shop" in text
    assert "policy:      allowed by readers" in asked("shop", "--", "GET", "/a/1").output
    assert "denied: no policy allows it" in asked("shop", "--", "GET", "/both").output
    place = From(netns=stage.world.netns, cgroup=stage.cgroup)
    for method, target, status in (("POST", "/a", 403), ("GET", "/a", 200), ("GET", "/both", 403)):
        request = head(target, method=method)
        live = seen.send(request, address=VIP4, port=PORT, place=place)
        assert live["status"] == status
    # Another name alone changes no row in the kernel; it is told all the same.
    rows = dict(stage.path.maps["http_ports"].items())
    stage.ports.set_port(VIP4, PORT, ROUTES, governs=guard("renamed"))
    assert dict(stage.path.maps["http_ports"].items()) == rows
    answer = json.loads(asked("shop", "--output", "json", "--", "POST", "/a/1").output)
    assert answer["authorization"] == {
        "allowed": False,
        "policies": [
            {"name": "ns[web]-policy[renamed]-rule[1]", "policy": "web/renamed", "rule": 1}
        ],
        "meaning": "denied by web/renamed, rule 1",
    }
    stage.ports.set_port(VIP4, PORT, ROUTES)
    assert "policy:" not in asked("shop", "--", "POST", "/a/1").output


def test_kmeshctl_says_which_clients_may(
    stage: Stage, seen: HttpSeen, asked: Callable[..., Result]
) -> None:
    web = PrincipalIs(TextMatch(TextKind.REGEX, ".*/ns/web/.*"))
    policy = RbacPolicy(name="ns[web]-policy[ours]-rule[0]", permissions=(Anything(),), principals=(web,))  # fmt: skip
    port = replace(guard("no-writes"), rbac=(Rbac(action=Action.ALLOW, policies=(policy,)),))
    stage.ports.set_port(VIP4, PORT, ROUTES, governs=port)
    # The test's namespace has no address that a workload is known by: nobody sends it.
    lines = asked("shop", "--send", "--", "GET", "/a/1").output.splitlines()
    assert (
        "  policy:      by client: identity like .*/ns/web/.*: allowed by web/ours, rule 0; "
        "else denied: no policy allows it"
    ) in lines
    assert "  does:        to an endpoint, by the gate, but 403 for some clients" in lines
    assert any("status 403 from nobody, served by the gate" in line for line in lines)
    assert "  the live path chose as computed" in lines
    answer = json.loads(asked("shop", "--output", "json", "--", "GET", "/a/1").output)
    assert answer["authorization"]["allowed"] is None


def test_without_a_daemon_the_maps_answer_of_an_address(
    stage: Stage, seen: HttpSeen, tmp_path: Path
) -> None:
    def ask(service: str) -> Result:
        where = ["--run-dir", str(tmp_path), "--pins", str(stage.pins)]
        words = ["--service", service, "--output", "json", "--", "GET", "/a/1"]
        return CliRunner().invoke(kmeshctl, ["explain", *where, *words, "-H", "Host: shop.example"])

    result = ask(VIP4)
    assert "read from the kernel's maps" in result.output
    answer = json.loads(result.output[result.output.index("{") :])
    full = explained(stage, seen, head("/a/1"))
    assert answer["clusters"][0]["endpoints"] == full["clusters"][0]["endpoints"]
    assert "give the service's address" in str(getattr(ask("shop").exception, "hint", ""))


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("nobody", "--", "GET", "/"), "no service 'nobody'"),
        (("shop", "--port", "81", "--", "GET", "/"), "routes no HTTP for shop at port 81"),
        (("shop", "--", "GET"), "say which request"),
        (("shop", "--", "GET", "/", "x"), "'x' is neither -H nor a header after it"),
        (("shop", "--send", "--from", "/nowhere", "--", "GET", "/"), "/nowhere"),
    ],
)
def test_kmeshctl_says_what_cannot_be_explained(
    asked: Callable[..., Result], words: tuple[str, ...], wrong: str
) -> None:
    result = asked(*words)
    assert result.exit_code != 0
    assert wrong in f"{result.output}{result.exception}"


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("GET", "/a b", ()), "no method and path"),
        (("GET", "/a\r\nX: y", ()), "control characters"),
        (("GET", "/a", ("no header",)), "no header"),
        (("GET", "/a", ("x: a\r\ny: b",)), "control characters"),
    ],
)
def test_a_head_is_one_request(words: tuple[str, str, tuple[str, ...]], wrong: str) -> None:
    with pytest.raises(KmeshError, match=wrong):
        request_head(*words, host="h", port=80)
