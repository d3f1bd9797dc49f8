# SPDX-License-Identifier: Apache-2.0
"""Heads and bodies that two readers may take for different things, through the live path.

Backends record what they get. Whatever a client sends, what is handed on are whole requests from the
front of it, each plainly right and at the backend that its own head asks for; and Envoy, which is given
the same bytes, has accepted each of them too.
"""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.plan.normalise import normalised_head
from runtime.tables.http_numbers import HEAD_MAX
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4, wait_for
from tests.plan.envoy_oracle import envoy
from tests.plan.smuggling import CORPUS, head

pytestmark = pytest.mark.root

EVIL = b"GET /b/evil HTTP/1.1\r\nHost: evil\r\n\r\n"
LAST = b"GET /b/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = head(b"Transfer-Encoding: chunked", first=b"POST /a/x HTTP/1.1")
EVIL_CHUNK = b"%x\r\n" % len(EVIL) + EVIL + b"\r\n0\r\n\r\n"
BODIES = [
    CHUNKED + body
    for body in (
        b"0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        EVIL_CHUNK,
        b"00005\r\nhello\r\n000\r\n\r\n",
        b"5;a\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\r\nhello\r\n0;c=d\r\n\r\n",
        b'5;a="b;\\"c"\r\nhello\r\n0\r\n\r\n',
        b"5;\r\nhello\r\n0\r\n\r\n",
        b"5 ;a\r\nhello\r\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\x00\r\nhello\r\n0\r\n\r\n",
        b"5;\n" + EVIL_CHUNK,
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5_\r\nhello\r\n0\r\n\r\n",
        b"5,\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\t\r\nhello\r\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
        b"\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffe\r\n" + EVIL,
        b"5" + b"0" * 30 + b"\r\nhello",
        b"0\r\nX: y\r\n\r\n",
        b"0\r\nX: y\r\nZ:\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\n X: y\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\n: y\r\n\r\n",
        b"0\r\nX: y\x00\r\n\r\n",
        b"0\r\nHost: evil\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\n" + EVIL,
        b"0\n\n",
        b"0\r\n\n",
        b"0\n\r\n",
        b"0\r\r\n\r\n",
        b"0\r\n\r\r\n",
    )
]
LENGTHS = [
    head(b"Content-Length: %d" % len(EVIL), first=b"POST /a/x HTTP/1.1") + EVIL,
    head(b"Content-Length: 0", first=b"POST /a/x HTTP/1.1"),
    head(b"Content-Length: 000", first=b"POST /a/x HTTP/1.1"),
    head(b"Content-Length: 0005", first=b"POST /a/x HTTP/1.1") + b"hello",
    head(b"Content-Length: 5", first=b"GET /a/x HTTP/1.1") + b"hello",
    head(b"Content-Length: 5", first=b"HEAD /a/x HTTP/1.1") + b"hello",
    head(b"Content-Length: 6", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + EVIL,
    head(b"Transfer-Encoding: chunked", b"Content-Length: 6") + b"0\r\n\r\n" + EVIL,
    head(b"Content-Length: 0", b"Content-Length: %d" % len(EVIL)) + EVIL,
    head(b"Content-Length: %d" % len(EVIL), b"Content-Length: 0") + EVIL,
    head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x") + EVIL_CHUNK,
    head(b"Transfer-Encoding: x, chunked") + EVIL_CHUNK,
    head(b"Transfer-Encoding: CHUNKED", first=b"POST /a/x HTTP/1.1") + EVIL_CHUNK,
    head(b"Transfer-Encoding:chunked ", first=b"POST /a/x HTTP/1.1") + EVIL_CHUNK,
    head(b"Content-Length: 5", b"Connection: content-length") + b"hello",
    head(b"Transfer-Encoding: chunked", b"Connection: transfer-encoding") + EVIL_CHUNK,
    head(b"Connection: close, x-a", b"X-A: b") + EVIL,
    head(b"Connection: close", first=b"GET /a/x HTTP/1.1") + EVIL,
    head(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AA") + EVIL,
    head(b"Expect: 100-continue", b"Content-Length: 5", first=b"POST /a/x HTTP/1.1") + b"hello",
    head(first=b"GET /a/x HTTP/1.0") + EVIL,
    head(b"Connection: keep-alive", first=b"GET /a/x HTTP/1.0") + EVIL,
    b"GET /a/x\r\n" + EVIL,
    head(first=b"GET http://evil/b/x HTTP/1.1", host=b"Host: a") + EVIL,
    head(first=b"GET http://a/b/x HTTP/1.1", host=b"Host: evil"),
    head(first=b"GET /a/x HTTP/1.1") + b"\r\n" + EVIL,
    head(first=b"GET /a/x HTTP/1.1") + b"\n" + EVIL,
    head(first=b"GET /a/x HTTP/1.1") + EVIL * 3,
]
ALL = [*CORPUS, *BODIES, *LENGTHS]


@pytest.fixture(scope="module")
def recorders(shared_stage: Stage) -> dict[str, int]:
    """Recorders a, for all paths, and b, for those that begin with /b."""
    shared_stage.renew()
    ports = {name: int(shared_stage.backend("record", "127.0.0.1", name)) for name in "ab"}
    for name, port in ports.items():
        shared_stage.ports.set_cluster(name, [Target("127.0.0.1", port)])
    shared_stage.route(ROUTES)
    return ports


ROUTES = table(to("/b", "b"), to("/", "a"))
WARM = ["/a/warm", "/b/warm", "/a/warm", "/b/warm"]


def owner(request: str) -> str:
    return "b" if request.split(" ")[1].startswith("/b") else "a"


def is_over(stage: Stage) -> bool:
    status = stage.status()
    if status["sessions"] or status["busy"]:
        return False
    return int(stage.backend("connections")) == status["idle"]


def rewritten(sent: bytes) -> bytes:
    """With the path of the first request as Envoy has it, and blanks for what that is shorter."""
    made = normalised_head(sent) or sent
    before, colon, after = made.partition(b":")
    return before + colon + b" " * (len(sent) - len(made)) + after


def check_recorded(stage: Stage, sent: bytes, answers: list[str]) -> list[str]:
    """Whole requests from the front of what was sent, each at its own backend; the targets."""
    wait_for(lambda: is_over(stage), "the connection has ended, and all of it is recorded")
    found = stage.backend("recorded")[len(WARM) :]
    whole = [text for _, kind, text in found if kind == "whole"]
    parts = [text for _, kind, text in found if kind == "part"]
    assert [kind for _, kind, _ in found if kind not in {"whole", "part"}] == [], found
    assert len(parts) <= 1
    recorded = "".join([*whole, *parts])
    assert any(one.decode("latin-1").startswith(recorded) for one in (sent, rewritten(sent)))
    assert [name for name, _, _ in found] == [owner(text) for _, _, text in found]
    assert [one for one in answers if one in "ab"] == [owner(text) for text in whole]
    return [text.split(" ")[1] for text in whole]


@pytest.fixture(scope="module")
def envoys(
    recorders: dict[str, int],
    shared_stage: Stage,
    checkout: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[bytes, list[str]]:
    """What an Envoy makes of each of them that routes as the stage does."""
    directory, within = tmp_path_factory.mktemp("envoy"), shared_stage.inside()
    place = directory / "listen"
    program, old_too = (
        checkout / ".venv/bin/envoy",
        {"http_protocol_options": {"accept_http_10": True}},
    )
    with (
        envoy(program, directory, ports=recorders, prefix=within, manager=old_too) as running,
        ThreadPoolExecutor(32) as pool,
    ):
        running.load(ROUTES)
        answers = pool.map(lambda data: ask_envoy(place, data + LAST), ALL)
        return dict(zip(ALL, answers, strict=True))


def ask_envoy(place: Path, sent: bytes) -> list[str]:
    """Who answered the requests that Envoy finds there, or the status that it gives itself."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(3)
        client.connect(str(place))
        found = b""
        try:
            client.sendall(sent)
            while more := client.recv(1 << 16):
                found += more
        except (TimeoutError, ConnectionError):
            pass  # it waits for more
    heads = [
        one for one in re.split(r"HTTP/1\.[01] ", found.decode("latin-1"))[1:] if one[0] != "1"
    ]
    return [one.partition("x-backend: ")[2][:1] or one[:3] for one in heads]


def same(found: list[str]) -> list[str]:
    """Answers, with one word for refusals: a few bytes do not always show that it is no HTTP at all."""
    return ["refused" if one in {"400", "503"} else one for one in found]


def send(stage: Stage, parts: list[bytes]) -> tuple[list[str], list[str]]:
    """On a connection whose next request the kernel takes: the answers, and the targets that arrived."""
    stage.backend("recorded")
    texts = [part.decode("latin-1") for part in parts]
    answers = stage.client("statuses", VIP4, PORT, texts, WARM)
    return same(answers), check_recorded(stage, b"".join(parts), answers)


@pytest.mark.parametrize("data", ALL, ids=repr)
def test_what_is_ambiguous_is_handed_on_whole_or_not_at_all(
    shared_stage: Stage, recorders: dict[str, int], envoys: dict[bytes, list[str]], data: bytes
) -> None:
    sent = data + LAST
    found = send(shared_stage, [sent])
    assert send(shared_stage, [sent[at : at + 9] for at in range(0, len(sent), 9)]) == found
    assert send(shared_stage, [data, LAST]) == found
    ours = [one for one in found[0] if one in "ab"]
    assert envoys[data][: len(ours)] == ours


PLAIN = [
    head(first=b"GET /a/x HTTP/1.1"),
    head(b"Content-Length: %d" % len(EVIL), first=b"POST /a/x HTTP/1.1") + EVIL,
    CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
]


@pytest.mark.parametrize("data", PLAIN, ids=repr)
def test_a_request_is_the_same_wherever_it_is_cut(
    shared_stage: Stage, recorders: dict[str, int], data: bytes
) -> None:
    end = data.index(b"\r\n\r\n") + 4
    for at in range(end - 6, min(end + 3, len(data))):
        found = send(shared_stage, [data[:at], data[at:], LAST])
        assert found == (["a", "b"], ["/a/x", "/b/last"]), at
        twice = send(shared_stage, [data + data[:at], data[at:] + LAST])
        assert twice == (["a", "a", "b"], ["/a/x", "/a/x", "/b/last"]), at


@pytest.mark.parametrize("size", range(HEAD_MAX - 3, HEAD_MAX + 4))
def test_heads_about_as_long_as_may_be(
    shared_stage: Stage, recorders: dict[str, int], size: int
) -> None:
    """In one piece and in two: one over the limit is refused, and nothing behind it is looked at."""
    bare = len(head(b"X: ", first=b"GET /a/x HTTP/1.1"))
    data = head(b"X: " + b"y" * (size - bare), first=b"GET /a/x HTTP/1.1")
    assert len(data) == size
    fits = size <= HEAD_MAX
    for at in (0, 1000, size - 4, size - 3, size - 2, size - 1):
        parts = [part for part in (data[:at], data[at:] + LAST) if part]
        answers, reached = send(shared_stage, parts)
        assert reached == (["/a/x", "/b/last"] if fits else [])
        assert answers == (["a", "b"] if fits else ["431"])
