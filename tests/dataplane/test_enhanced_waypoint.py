# SPDX-License-Identifier: Apache-2.0
"""What the tables cannot answer goes to a waypoint, a real Envoy, and each response is in its place."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.kernel.gate import Gate, GateError
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.envoys import Envoys
from tests.dataplane.test_enhanced_streams import BIG, good
from tests.dataplane.waypoint_envoy import (
    WAYPOINT_PORT,
    envoy_config,
    use_instances,
    use_node,
)
from tests.dataplane.world import VIP4

pytestmark = pytest.mark.root

ROUTES = table(to("/far", "a", beyond=("timeout: 3s",)), to("/a", "a"), to("/b", "b"))
SLASH, SOURCE = "/", "10.244.3.4/32"


class Far:
    """Envoys, and a stage that knows of them in one of both ways."""

    def __init__(self, stage: Stage, envoys: Envoys, kind: str, scratch: Path) -> None:
        self.stage, self.envoys, self.kind = stage, envoys, kind
        self.here = str(scratch / "waypoint") if kind == "node" else "127.0.0.9"

    def use(self) -> None:
        if self.kind == "node":
            use_node(self.stage, self.here)
        else:
            use_instances(self.stage, ROUTES, self.here)

    @property
    def name(self) -> str:
        return f"unix:{self.here}" if self.kind == "node" else f"{self.here}]:{WAYPOINT_PORT}"


@pytest.fixture(scope="module")
def envoys(shared_stage: Stage, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoys]:  # fmt: skip
    scratch = tmp_path_factory.mktemp("envoys")
    shared_stage.world.add_address(SOURCE)
    backend = shared_stage.world.agent(
        script=Path(__file__).with_name("http_agent.py")
    )("serve", "127.0.0.1", "far")  # fmt: skip
    found = Envoys(
        shared_stage.world,
        checkout / ".venv/bin/envoy",
        scratch=scratch,
        config=lambda listen, _: envoy_config(listen, backend),
    )
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module", params=["node", "port"])
def a_kind(request: pytest.FixtureRequest, shared_stage: Stage, envoys: Envoys, tmp_path_factory: pytest.TempPathFactory) -> Far:  # fmt: skip
    far = Far(shared_stage, envoys, request.param, tmp_path_factory.mktemp("kind"))
    envoys.start(far.here)
    return far


@pytest.fixture
def far(a_kind: Far, stage: Stage) -> Iterator[Far]:
    stage.serve("a", "b")
    stage.route(ROUTES)
    a_kind.use()
    yield a_kind
    use_node(stage, "")


def test_one_connection_is_served_by_both_in_turn(far: Far) -> None:
    stage, before = far.stage, far.stage.taken()
    number = stage.client("connect", VIP4, PORT)
    for n in range(10):
        for target, who in ((f"/a/size/{n}", "a"), (f"/far/size/{n}", "far"), ("/b/size/5", "b")):
            size = int(target.rsplit(SLASH, 1)[1])
            assert stage.client("ask", number, target) == good(who, target, size)
    assert stage.taken() >= before + 15
    assert stage.status()["idle"] == 3  # one to each, and one to the waypoint: no more


def test_a_rewritten_route_and_a_timeout(far: Far) -> None:
    number = far.stage.client("connect", VIP4, PORT)
    rewritten = good("far", "/new/size/9", 9)
    assert far.stage.client("ask", number, "/far/rewritten/size/9") == rewritten
    assert far.stage.client("ask", number, "/far/late")[0] == 504
    assert far.stage.client("ask", number, "/a/size/1") == good("a", "/a/size/1", 1)


def test_a_pipeline_through_both_is_answered_in_order(far: Far) -> None:
    targets = [f"/{('a', 'far', 'b')[n % 3]}/size/{n * 37}" for n in range(45)]
    extra = {"method": "POST", "size": 50}
    found = far.stage.client("pipeline", VIP4, PORT, targets, extra)
    assert found == [good(t.split(SLASH)[1], t, n * 37) for n, t in enumerate(targets)]


def test_the_waypoint_knows_from_where_a_client_comes(far: Far) -> None:
    raw = "GET /far/size/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    found = far.stage.client("whole", VIP4, PORT, raw, "wait")
    assert re.search(r"x-source: 10\.244\.3\.4:\d+\r\n", found), found


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        ("GET /far/size/3 HTTP/1.0\r\n\r\n", 200),
        ("GET /a/..;/b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        ("GET /a%01b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        ("GET http://y/a/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        ("GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        ("GET /a HTTP/1.1\r\nHost: x\r\nX: " + "y" * 9000 + "\r\nConnection: close\r\n\r\n", 200),
        ("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_what_the_tables_cannot_answer_is_the_waypoints(
    far: Far, request_bytes: str, status: int
) -> None:
    found = far.stage.client("whole", VIP4, PORT, request_bytes, "wait")
    assert found.split(" ")[1] == str(status), found
    assert "x-kmesh-reason" not in found
    assert "x-backend: a" not in found
    assert far.stage.ask(["/a", "/b", "/far"]) == ["a", "b", "far"]


def test_a_client_of_http_2_with_prior_knowledge(far: Far) -> None:
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    url = f"http://{VIP4}:{PORT}/a/size/70000"
    for extra in ((), ("-d", "x" * 70000)):
        done = far.stage.run(
            "curl", "-sv", "--http2-prior-knowledge", "-m", "50", "-o", "/dev/null",
            "-w", "%{http_version} %{size_download}", *extra, url,
        )  # fmt: skip
        assert done.stdout == "2 70000", done.stderr[-2000:]


def test_another_protocol_after_connect_and_after_an_upgrade(far: Far) -> None:
    stage = far.stage
    for raw, status in (
        ("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", "200"),
        ("GET /far/upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n", "101"),
    ):  # fmt: skip
        number = stage.client("connect", VIP4, PORT)
        stage.client("send", number, raw)
        assert str(stage.client("head", number)).split(" ")[1] == status
        # Within CONNECT the backend is spoken to as HTTP; after the upgrade it echoes.
        inner = "GET /in/size/5 HTTP/1.1\r\nHost: x\r\n\r\n"
        for _ in range(3):
            stage.client("send", number, inner)
            if status == "200":
                assert stage.client("read", number) == good("far", "/in/size/5", 5)
            else:
                assert stage.client("take", number, len(inner)) == inner
        stage.client("end_sending", number)
        assert stage.client("at_end", number)


def test_continue_comes_from_the_waypoint(far: Far) -> None:
    number = far.stage.client("connect", VIP4, PORT)
    head = "POST /far/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    far.stage.client("send", number, head)
    assert far.stage.client("read", number)[0] == 100
    far.stage.client("send", number, "\0\1\2\3\4")
    assert far.stage.client("read", number) == good("far", "/far/echo", 5)


@pytest.mark.parametrize("size", [1, 65536, BIG])
def test_bodies_both_ways_through_the_waypoint(far: Far, size: int) -> None:
    number = far.stage.client("connect", VIP4, PORT)
    for extra in ({}, {"chunked": True}):
        posted = {"method": "POST", "size": size, **extra}
        found = far.stage.client("ask", number, "/far/echo", posted)
        assert found == good("far", "/far/echo", size)
        target = f"/far/chunked/{size}"
        assert far.stage.client("ask", number, target) == good("far", target, size)
        assert far.stage.client("ask", number, "/a/size/3") == good("a", "/a/size/3", 3)


def test_a_body_of_which_nobody_is_sure_makes_it_the_waypoints_for_good(far: Far) -> None:
    """It turns out when the waypoint has begun to read the request."""
    number, before = far.stage.client("connect", VIP4, PORT), far.stage.taken()
    head = "POST /far/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    far.stage.client("send", number, head)
    far.stage.client("send", number, "3\r\n\0\1\2\r\n0\r\nHost: y\r\n\r\n")
    assert far.stage.client("read", number)[:3] == [200, "far", "/far/echo"]
    for _ in range(3):
        assert far.stage.client("ask", number, "/a/size/4") == good("far", "/a/size/4", 4)
    assert far.stage.taken() == before


def test_a_waypoint_that_dies_is_never_half_a_response(far: Far) -> None:
    stage = far.stage
    numbers = [stage.client("connect", VIP4, PORT) for _ in range(3)]
    for number, raw in zip(numbers, (
        "GET /far/slow/30 HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /far/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
    ), strict=True):  # fmt: skip
        stage.client("send", number, raw)
    assert stage.client("head", numbers[2]).split(" ")[1] == "200"
    far.envoys.kill(far.here)
    try:
        for number in numbers[:2]:
            status, why, *_ = stage.client("read", number)
            assert (status, "waypoint" in why) == (503, True), why
        assert stage.client("at_end", numbers[2])
        number = stage.client("connect", VIP4, PORT)
        status, why, *_ = stage.client("ask", number, "/far/size/1")
        assert (status, far.name in why) == (503, True), why
        assert stage.client("ask", number, "/a/size/3") == good("a", "/a/size/3", 3)
    finally:
        Path(far.here).unlink(missing_ok=True)
        far.envoys.start(far.here)


def test_other_instances_take_over_for_a_dead_one(far: Far, stage: Stage) -> None:
    if far.kind == "node":
        pytest.skip("the node has one waypoint")
    use_instances(stage, ROUTES, far.here, "127.0.0.7", "127.0.0.8")
    for _ in range(12):
        assert stage.ask(["/far/size/1", "/a"]) == ["far", "a"]


def test_without_a_waypoint_it_is_503_with_the_reason(stage: Stage) -> None:
    stage.serve("a")
    stage.route(ROUTES)
    number = stage.client("connect", VIP4, PORT)
    assert stage.client("ask", number, "/far")[:2] == [
        503,
        "it takes a waypoint, and there is none: timeout: 3s",
    ]
    with Gate(stage.place.socket) as gate, pytest.raises(GateError, match="too long"):
        gate.set_waypoint("/" + "x" * 120)
