# SPDX-License-Identifier: Apache-2.0
"""The enhanced path's second provider: connections that wait for their first request, and go where it says.

It takes a kernel with Kmesh's own functions: `python -m ci.matrix.openeuler` boots one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from runtime.bpf.attach import Link
from runtime.bpf.objects import BpfObject
from runtime.kernel.features import config
from runtime.probe.provider import defers
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not defers(), reason="no kmesh_defer in this kernel's TCP: python -m ci.matrix.openeuler"
    ),
]
CLOSE = "Connection: close\r\n"


@pytest.fixture(scope="module")
def shared_stage(all_objects: Path, gate_program: Path) -> Iterator[Stage]:
    """A stage whose clients' connect4 program is the second provider's, over the same tables."""
    with ExitStack() as stack:
        made = stack.enter_context(Stage(all_objects, gate_program))
        ours = stack.enter_context(BpfObject(all_objects / "openeuler/connect4.bpf.o"))
        for name in ours.maps():
            if name in made.path.maps:
                ours.reuse_map(name, made.path.maps[name].fd)
        ours.set_initial_value(".rodata.config", config().pack())
        ours.load()
        made.path.release_cgroup(made.cgroup)
        programs = {one.name: one for one in made.path._open.for_cgroups()}
        programs |= {"kmesh_connect4": ours.programs()["kmesh_connect4"]}
        cgroup = os.open(made.cgroup, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, cgroup)
        for program in programs.values():
            link = Link.to_cgroup(program.fd, cgroup, program.attach_type)
            stack.callback(link.close)
        yield made


def ask_once(stage: Stage, target: str, **extra: Any) -> Any:
    """Who answers the only request of a connection, or the status."""
    return stage.ask([target], **{"headers": CLOSE, **extra})[0]


def ask_text(stage: Stage, *parts: str) -> list[Any]:
    """The response to bytes, sent part by part on a connection of their own."""
    number = stage.client("connect", VIP4, PORT)
    for part in parts:
        stage.client("send", number, part)
    answer: list[Any] = stage.client("read", number)
    stage.client("close", number)
    return answer


def test_the_only_request_of_a_connection_goes_straight_where_its_route_says(routed: Stage) -> None:
    before = routed.taken()
    found = [ask_once(routed, f"/{name}/{n}") for n, name in enumerate("abba")]
    assert found == ["a", "b", "b", "a"]
    assert routed.taken() == before + 4
    assert routed.status()["sessions"] == 0  # no gate was on the way


def test_with_a_body_too_whatever_the_headers_names_look_like(routed: Stage) -> None:
    before = routed.taken()
    assert ask_once(routed, "/b/echo", method="POST", size=3000) == "b"
    lower = "GET /a HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n"
    assert ask_text(routed, lower)[:2] == [200, "a"]
    assert routed.taken() == before + 2


def test_the_service_is_what_the_client_sees(routed: Stage) -> None:
    number = routed.client("connect", VIP4, PORT)
    routed.client("send", number, f"GET /a HTTP/1.1\r\nHost: a\r\n{CLOSE}\r\n")
    assert routed.client("peer", number) == [VIP4, PORT]
    assert routed.client("read", number)[1] == "a"
    routed.client("close", number)


def test_weights_are_kept(stage: Stage) -> None:
    stage.serve("a", "b", "c")
    stage.route(table(to("/", ("a", 1), ("b", 1), ("c", 0))))
    found = Counter(ask_once(stage, "/") for _ in range(40))
    assert set(found) == {"a", "b"}  # one is left out by chance once in 2^39


def test_a_connection_that_stays_is_routed_request_by_request_by_the_gate(routed: Stage) -> None:
    before = routed.taken()
    assert routed.ask(["/a/1", "/b/2", "/a/3", "/b/4"] * 3) == ["a", "b"] * 6
    # A socket with an upper layer protocol cannot be in a sockmap: the kernel takes none of them.
    assert routed.taken() == before
    assert routed.path.gate_counters()["not_idle"] == 0


@pytest.mark.parametrize(
    ("cut", "target"),
    [(1, "/a"), (30, "/b"), (0, "/a/../b"), (0, "/a/..;/b")],
)
def test_what_is_no_plain_whole_request_is_the_gates(routed: Stage, cut: int, target: str) -> None:
    before = routed.taken()
    text = f"GET {target} HTTP/1.1\r\nHost: a.example\r\n{CLOSE}\r\n"
    answer = ask_text(routed, *([text[:cut], text[cut:]] if cut else [text]))
    if ";" not in target:
        assert answer[:2] == [200, target[-1]]
    else:
        assert answer[0] == 503  # takes a waypoint to resolve, and there is none
    assert routed.taken() == before


def test_two_requests_at_once_are_the_gates(routed: Stage) -> None:
    before = routed.taken()
    first = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    text = first + f"GET /b HTTP/1.1\r\nHost: x\r\n{CLOSE}\r\n"
    answers = routed.client("whole", VIP4, PORT, text, "read")
    assert [answers.count(f"x-backend: {name}") for name in "ab"] == [1, 1]
    assert routed.taken() == before


def test_no_route_and_no_endpoint_are_the_gates_to_say(stage: Stage) -> None:
    stage.ports.set_cluster("b", [])
    stage.serve("a")
    stage.route()
    assert ask_once(stage, "/c") == 404
    assert ask_once(stage, "/b") == 503
    assert ask_once(stage, "/a") == "a"


def test_an_endpoint_that_refuses_is_an_error_of_send(stage: Stage) -> None:
    gone = stage.serve("a")["a"]
    stage.renew()  # its server has ended
    stage.ports.set_cluster("a", [Target("127.0.0.1", gone)])
    stage.route(table(to("/", "a")))
    with pytest.raises(AssertionError, match=r"ConnectionRefused|ConnectionReset|BrokenPipe"):
        ask_once(stage, "/")


def test_another_program_and_what_has_no_routes(routed: Stage) -> None:
    before = routed.taken()
    done = routed.run("curl", "-sSi", "-H", "Connection: close", f"http://{VIP4}/b/x")
    assert "x-backend: b" in done.stdout, done.stderr
    assert routed.taken() == before + 1
    direct = routed.backend("serve", "127.0.0.1", "direct")
    assert routed.run("curl", "-sS", f"http://127.0.0.1:{direct}/").returncode == 0
    assert routed.taken() == before + 1


def test_many_at_a_time_that_do_not_block(routed: Stage) -> None:
    before, answers = routed.taken(), ("-o", "/dev/null", "-w", "%{http_code} ")
    many = ("-Z", "--parallel-max", "16", f"http://{VIP4}/[a-b]/[1-20]")
    done = routed.run("curl", "-sS", "-H", "Connection: close", *answers, *many, seconds=300)
    assert done.stdout.split() == ["200"] * 40, done.stderr
    assert routed.taken() == before + 40


def test_a_client_that_goes_before_it_has_said_anything(routed: Stage) -> None:
    for _ in range(3):
        routed.client("close", routed.client("connect", VIP4, PORT))
    assert ask_once(routed, "/a") == "a"
    assert routed.status()["sessions"] == 0
