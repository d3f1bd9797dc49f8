# SPDX-License-Identifier: Apache-2.0
"""However a request comes and whatever its size, each response is its own, and every byte of it is there."""

from __future__ import annotations

import hashlib
import random

import pytest

from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.http_backend import body
from tests.dataplane.world import VIP4

pytestmark = pytest.mark.root

BIG = 10 * 1024 * 1024


def good(name: str, target: str, size: int) -> list[object]:
    return [200, name, target, hashlib.sha256(body(size)).hexdigest()[:16], size]


def test_requests_in_random_pieces(routed: Stage) -> None:
    draw = random.Random(1)
    whole = "POST /a/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n" + body(11).decode(
        "latin-1"
    )
    for _ in range(40):
        cuts = sorted(draw.sample(range(1, len(whole)), draw.randrange(1, 6)))
        assert routed.client("pieces", VIP4, PORT, whole, cuts) == good("a", "/a/echo", 11), cuts


def test_a_request_in_one_byte_pieces(routed: Stage) -> None:
    whole = "GET /b/size/7 HTTP/1.1\r\nHost: x\r\n\r\n"
    cuts = list(range(1, len(whole)))
    assert routed.client("pieces", VIP4, PORT, whole, cuts) == good("b", "/b/size/7", 7)


@pytest.mark.parametrize("chunked", [0, 1])
def test_pipelined_requests_are_answered_in_their_order(routed: Stage, chunked: int) -> None:
    targets = [f"/{'ab'[n % 2]}/size/{n * 37}" for n in range(60)]
    extra = {"method": "POST", "size": 50, "chunked": chunked}
    found = routed.client("pipeline", VIP4, PORT, targets, extra)
    assert found == [good("ab"[n % 2], targets[n], n * 37) for n in range(60)]


def test_a_pipeline_that_overtakes_a_slow_response(routed: Stage) -> None:
    """The kernel takes the first, and the next come while it is under way."""
    number = routed.client("connect", VIP4, PORT)
    for target in ("/a/x", "/b/x", "/a/x", "/b/x"):
        routed.client("ask", number, target)
    before = routed.taken()
    first = "GET /a/slow/0.5 HTTP/1.1\r\nHost: x\r\n\r\n"
    later = "GET /b/size/3 HTTP/1.1\r\nHost: x\r\n\r\n"
    routed.client("send", number, first)
    routed.client("send", number, later)
    routed.client("send", number, later)
    assert routed.client("read", number) == good("a", "/a/slow/0.5", 0)
    assert routed.client("read", number) == good("b", "/b/size/3", 3)
    assert routed.client("read", number) == good("b", "/b/size/3", 3)
    assert routed.taken() == before + 1
    assert routed.client("ask", number, "/b/size/5") == good("b", "/b/size/5", 5)
    assert routed.taken() == before + 2  # and the kernel is back


@pytest.mark.parametrize("cut", [0, 9, 14, 33, 50])
@pytest.mark.parametrize(
    ("target", "becomes"),
    [
        ("/b/../a/size/5", "/a/size/5"),
        ("/%61/size/5?q=/../%41", "/a/size/5?q=/../%41"),
        ("/b/%2e%2E/./a/size/%35", "/a/size/5"),
    ],
)
def test_paths_that_envoy_would_rewrite(routed: Stage, target: str, becomes: str, cut: int) -> None:
    """The gate does, wherever the head is cut, and what follows is where it was in the stream."""
    number = routed.client("connect", VIP4, PORT)
    for each in ("/a", "/b", "/a", "/b"):
        routed.client("ask", number, each)
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nX-Y: z\r\n\r\n"
    before = routed.taken()
    for piece in filter(None, (head[:cut], head[cut:] + head)):
        routed.client("send", number, piece)
    for _ in range(2):
        assert routed.client("read", number) == good("a", becomes, 5)
    assert routed.taken() == before
    assert routed.client("ask", number, "/b/size/3") == good("b", "/b/size/3", 3)
    assert routed.taken() == before + 1


@pytest.mark.parametrize("size", [0, 1, 8192, 65536, 1_000_000, BIG])
def test_bodies_of_every_size_both_ways(routed: Stage, size: int) -> None:
    number = routed.client("connect", VIP4, PORT)
    for name in ("a", "b", "a"):
        extra = {"method": "POST", "size": size}
        assert routed.client("ask", number, f"/{name}/echo", extra) == good(
            name, f"/{name}/echo", size
        )
        chunked = {"method": "POST", "size": size, "chunked": True}
        assert routed.client("ask", number, f"/{name}/echo", chunked) == good(
            name, f"/{name}/echo", size
        )
        target = f"/{name}/chunked/{size}"
        assert routed.client("ask", number, target) == good(name, target, size)


def test_a_slow_reader_gets_everything(routed: Stage) -> None:
    target = f"/a/size/{BIG}"
    assert routed.client("slow_reader", VIP4, PORT, target, 1.0) == good("a", target, BIG)


def test_a_slow_server_gets_everything(routed: Stage) -> None:
    """It reads late: the redirect must not lose what does not fit."""
    number = routed.client("connect", VIP4, PORT)
    for size in (100, 4000, 100_000, BIG):
        target = "/a/lazy/0.3"
        extra = {"method": "POST", "size": size}
        assert routed.client("ask", number, target, extra)[:3] == [200, "a", target]


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "PURGE"])
def test_methods(routed: Stage, method: str) -> None:
    number, before = routed.client("connect", VIP4, PORT), routed.taken()
    for _ in range(4):
        answer = routed.client("ask", number, "/a/size/50", {"method": method})
        assert answer[:3] == [200, "a", "/a/size/50"]
        assert answer[4] == (0 if method == "HEAD" else 50)
    assert routed.taken() >= before + 2


def test_http_1_0_is_routed_by_the_gate(routed: Stage) -> None:
    """The connection ends with the response, unless the client asks that it stays."""
    head = "POST /{}/echo HTTP/1.0\r\nHost: x\r\nContent-Length: 3\r\n{}\r\n{}"
    told = routed.client("whole", VIP4, PORT, head.format("b", "", "abc"), "wait")
    assert told.startswith("HTTP/1.1 200")
    assert "x-backend: b" in told
    assert told.endswith("\r\n\r\n" + "abc")
    whole = head.format("b", "", "abc")
    for cut in range(1, whole.index("Content") + 1):
        assert routed.client("pieces", VIP4, PORT, whole, [cut])[:2] == [200, "b"], cut
    number, before = routed.client("connect", VIP4, PORT), routed.taken()
    for name in "aba":
        stays = head.format(name, "Connection: keep-alive\r\n", "abc")
        routed.client("send", number, stays)
        assert routed.client("read", number)[:3] == [200, name, f"/{name}/echo"]
    assert routed.taken() == before


def test_a_response_before_the_requests_body(routed: Stage) -> None:
    number = routed.client("connect", VIP4, PORT)
    extra = {"method": "POST", "size": BIG}
    assert routed.client("ask", number, "/a/early", extra)[:2] == [200, "a"]
    assert routed.client("ask", number, "/b/size/5") == good("b", "/b/size/5", 5)


def test_continue_is_relayed(routed: Stage) -> None:
    number = routed.client("connect", VIP4, PORT)
    head = "POST /a/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    routed.client("send", number, head)
    assert routed.client("read", number)[0] == 100
    routed.client("send", number, body(5).decode("latin-1"))
    assert routed.client("read", number) == good("a", "/a/echo", 5)


def test_an_upgrade_becomes_a_tunnel(routed: Stage) -> None:
    head = "GET /a/upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    found = routed.client("whole", VIP4, PORT, head + "hello " * 1000)
    assert found.startswith("HTTP/1.1 101 ")
    assert found.endswith("\r\n\r\n" + "hello " * 1000)


def test_a_response_that_ends_with_its_connection(routed: Stage) -> None:
    """Also for a client whose reads block: an enrolled socket has to say that it is at its end."""
    for size in (0, 10, 100_000):
        number = routed.client("connect", VIP4, PORT)
        routed.client("block", number)
        answer = routed.client("ask", number, f"/a/until-close/{size}")
        assert answer[1:2] + answer[3:] == [*good("a", "", size)[1:2], *good("a", "", size)[3:]]
        routed.client("close", number)


def test_close_is_close_on_both_sides(routed: Stage) -> None:
    number = routed.client("connect", VIP4, PORT)
    assert routed.client("ask", number, "/a/close")[:2] == [200, "a"]
    assert routed.client("at_end", number)
    head = {"headers": "Connection: close\r\n"}
    number = routed.client("connect", VIP4, PORT)
    assert routed.client("ask", number, "/a", head)[:2] == [200, "a"]
    assert routed.client("at_end", number)


def test_a_half_closed_client_gets_its_responses(routed: Stage) -> None:
    one = "GET /a/size/9 HTTP/1.1\r\nHost: x\r\n\r\n"
    found = routed.client("whole", VIP4, PORT, one * 5)
    assert found.count("HTTP/1.1 200 OK") == 5
    assert routed.status()["sessions"] == 0
