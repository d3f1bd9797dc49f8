# SPDX-License-Identifier: Apache-2.0
"""Ends that leave, die or lie: nobody waits for ever, and nobody gets what is another's."""

from __future__ import annotations

import pytest

from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root


def warm(stage: Stage) -> int:
    """A connection whose next request the kernel takes."""
    number = stage.client("connect", VIP4, PORT)
    for target in ("/a/x", "/b/x"):
        assert stage.client("ask", number, target)[0] == 200
    return int(number)


@pytest.mark.parametrize("what", ["die", "reset"])
@pytest.mark.parametrize("kernel", [1, 0])
def test_an_endpoint_that_ends_before_its_response(routed: Stage, what: str, kernel: int) -> None:
    number, before = warm(routed), routed.taken()
    extra = {} if kernel else {"method": "POST", "size": 10, "chunked": True}
    assert routed.client("ask", number, f"/a/{what}", extra)[0] == 503
    assert routed.taken() == before + kernel
    assert routed.client("ask", number, "/a/x")[:2] == [200, "a"]
    assert routed.client("ask", number, "/b/x")[:2] == [200, "b"]


def test_an_endpoint_that_ends_within_its_response_ends_the_clients_connection(
    routed: Stage,
) -> None:
    number = warm(routed)
    routed.client("send", number, "GET /a/cut HTTP/1.1\r\nHost: x\r\n\r\n")
    assert routed.client("at_end", number) is False  # the first bytes come
    wait_for(lambda: bool(routed.client("at_end", number)), "the connection ends")


def test_what_is_no_response_is_502(routed: Stage) -> None:
    number = warm(routed)
    assert routed.client("ask", number, "/a/garbage")[0] == 502
    assert routed.client("ask", number, "/a/x")[:2] == [200, "a"]


def test_bytes_after_a_response_are_nobodys(routed: Stage) -> None:
    number = warm(routed)
    for _ in range(10):
        assert routed.client("ask", number, "/a/extra")[4] == 5
        assert routed.client("ask", number, "/a/size/7")[1::3] == ["a", 7]


def test_an_idle_connection_that_its_endpoint_closed_is_not_used(routed: Stage) -> None:
    number = warm(routed)
    assert routed.client("ask", number, "/a/close")[0] == 200
    number = warm(routed)
    assert routed.status()["idle"] == 2


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("kernel", [1, 0])
def test_a_client_that_leaves_with_a_request_outstanding_takes_its_upstream_along(
    routed: Stage,
    how: str,
    kernel: int,
) -> None:
    leaver = warm(routed)
    request = "GET /a/slow/0.4 HTTP/1.1\r\nHost: x\r\n\r\n"
    for part in [request] if kernel else [request[:10], request[10:]]:
        routed.client("send", leaver, part)
    before = routed.taken()
    other = routed.client("connect", VIP4, PORT)
    routed.client(how, leaver)
    for _ in range(8):  # through the time at which the leaver's response comes
        for n, target in enumerate(("/a/size/5", "/a/slow/0.1")):
            answer = routed.client("ask", other, target)
            assert answer[:3] == [200, "a", target]
            assert answer[4] == (5, 0)[n]
    assert routed.taken() > before
    routed.client("close", other)
    wait_for(lambda: routed.status()["sessions"] == 0, "no session is left")
    assert routed.status()["busy"] == 0


def test_an_endpoint_that_cannot_be_reached_is_503_and_another_is_tried_first(
    stage: Stage,
) -> None:
    ports = stage.serve("a")
    stage.ports.set_cluster("none", [Target("127.0.0.1", 1)])
    stage.ports.set_cluster("some", [Target("127.0.0.1", 1), Target("127.0.0.1", ports["a"], 20)])
    stage.route(table(to("/none", "none"), to("/some", "some")))
    assert stage.ask(["/none", "/none"]) == [503, 503]
    assert set(stage.ask(["/some"] * 50)) == {"a"}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        ("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\n\r\n", 400),
        ("GET /a HTTP/1.1\nHost: x\n\n", 400),
        ("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 400),
        ("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;e=\n\r\nx\r\n0\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\nHost: x\r\nX: " + "y" * 9000 + "\r\n\r\n", 431),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
        ("GET /a HTTP/1.0\r\n\r\n", 400),
        ("POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET /a HTTP/0.9\r\nHost: x\r\n\r\n", 503),
        ("\x16\x03\x01\x02\x00\x01\x00", 400),
    ],
)  # fmt: skip
def test_what_is_not_plainly_right_is_refused_and_reaches_nobody(
    routed: Stage, request_bytes: str, status: int | None
) -> None:
    before = routed.status()["idle"]
    found = routed.client("whole", VIP4, PORT, request_bytes, "wait")
    assert found.startswith(f"HTTP/1.1 {status or ''}")
    assert "connection: close" in found
    assert routed.status()["idle"] == before
    assert routed.ask(["/a", "/b"]) == ["a", "b"]


def test_what_a_head_has_too_much_of_is_told(routed: Stage) -> None:
    start = "GET /a HTTP/1.1\r\nHost: x\r\n"
    for lines, told in (
        ("X: y\r\n" * 99, "HTTP/1.1 200 "),
        ("X: y\r\n" * 100, "x-kmesh-reason: the head has more than 100 header lines\r\n"),
        (f"X: {'y' * 8192}\r\n", "x-kmesh-reason: the head is longer than 8 KiB\r\n"),
    ):
        assert told in routed.client("whole", VIP4, PORT, f"{start}{lines}\r\n")


def test_a_request_behind_a_refused_one_is_not_looked_at(routed: Stage) -> None:
    smuggled = "GET /a HTTP/1.1\r\nHost : x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n"
    assert routed.client("whole", VIP4, PORT, smuggled, "wait").count("HTTP/1.1") == 1
