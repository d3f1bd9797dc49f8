# SPDX-License-Identifier: Apache-2.0
"""FIN and RST of either end, in each state of a connection: what arrives at the other end.

It is what TCP would bring without us, where one connection stands for the other; where the client's does not end
with the endpoint's, or the other way round, it is what a proxy of HTTP does.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from runtime.kernel.netns import enter_netns_at
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root

WAIT = 60
REQUEST = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
WHOLE = HEAD + b"done"


class Endpoint:
    """A server whose connections the test has in its own hands."""

    def __init__(self, stage: Stage) -> None:
        made: list[socket.socket] = []

        def listen() -> None:  # a thread of its own may be in another namespace
            enter_netns_at(stage.world.netns)
            made.append(socket.create_server(("127.0.0.1", 0)))

        thread = threading.Thread(target=listen)
        thread.start()
        thread.join()
        self._listener = made[0]
        self._listener.settimeout(WAIT)
        self.port = self._listener.getsockname()[1]
        self._peers: list[socket.socket] = []

    def accept(self) -> socket.socket:
        peer = self._listener.accept()[0]
        peer.settimeout(WAIT)
        self._peers.append(peer)
        return peer

    def close(self) -> None:
        for one in (*self._peers, self._listener):
            one.close()


def until(peer: socket.socket, last: bytes) -> bytes:
    found = b""
    while not found.endswith(last):
        more = peer.recv(65536)
        assert more, found
        found += more
    return found


def ending(peer: socket.socket) -> str:
    """How the other end's stream comes to its end."""
    try:
        while peer.recv(65536):
            pass
    except ConnectionResetError:
        return "reset"
    return "end"


def leave(peer: socket.socket, how: str) -> None:
    if how == "reset":
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half":
        peer.shutdown(socket.SHUT_WR)
    else:
        peer.close()


@pytest.fixture
def endpoint(stage: Stage) -> Iterator[Endpoint]:
    made = Endpoint(stage)
    stage.ports.set_cluster("a", [Target("127.0.0.1", made.port)])
    stage.route(table(to("/a", "a")))
    yield made
    made.close()


@pytest.fixture
def client(stage: Stage, endpoint: Endpoint) -> int:
    return int(stage.client("connect", VIP4, PORT))


def asked(stage: Stage, endpoint: Endpoint, client: int, kernel: int) -> socket.socket:
    """The connection of the endpoint's that has a request, which the kernel took or the gate."""
    if not kernel:
        before = stage.taken()
        for part in (REQUEST[:9], REQUEST[9:]):
            stage.client("send", client, part)
        peer = endpoint.accept()
        until(peer, b"\r\n\r\n")
        assert stage.taken() == before
        return peer
    stage.client("send", client, REQUEST)
    peer = endpoint.accept()  # which the kernel finds idle afterwards
    until(peer, b"\r\n\r\n")
    peer.sendall(WHOLE)
    assert stage.client("read", client)[0] == 200
    wait_for(lambda: stage.status()["idle"] == 1, "it is idle")
    before = stage.taken()
    stage.client("send", client, REQUEST)
    until(peer, b"\r\n\r\n")
    assert stage.taken() == before + 1
    return peer


KERNEL = pytest.mark.parametrize("kernel", [1, 0])


@KERNEL
def test_a_client_half_closes_after_its_request(
    stage: Stage, endpoint: Endpoint, client: int, kernel: int
) -> None:
    """The endpoint hears of it before it has answered, and its answer still comes."""
    peer = asked(stage, endpoint, client, kernel)
    stage.client("end_sending", client)
    assert ending(peer) == "end"
    peer.sendall(WHOLE)
    assert stage.client("read", client)[::4] == [200, 4]
    assert stage.client("at_end", client)


@KERNEL
def test_a_client_half_closes_after_its_response(
    stage: Stage, endpoint: Endpoint, client: int, kernel: int
) -> None:
    """Its own connection comes to its end; the endpoint's, which is others' too, need not."""
    peer = asked(stage, endpoint, client, kernel)
    peer.sendall(WHOLE)
    assert stage.client("read", client)[0] == 200
    stage.client("end_sending", client)
    assert stage.client("at_end", client)
    wait_for(lambda: stage.status()["sessions"] == 0, "no session is left")


@KERNEL
@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_client_leaves_before_its_response(
    stage: Stage, endpoint: Endpoint, client: int, kernel: int, how: str
) -> None:
    """The endpoint is told: by an end where TCP tells no more, or by a reset."""
    peer = asked(stage, endpoint, client, kernel)
    stage.client(how, client)
    assert ending(peer) in {"abort": {"reset"}, "close": {"end", "reset"}}[how]
    wait_for(lambda: stage.status()["sessions"] == 0 or how == "close", "no session is left")


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_client_leaves_with_half_a_request(
    stage: Stage, endpoint: Endpoint, client: int, how: str
) -> None:
    stage.client("send", client, POST)
    peer = endpoint.accept()
    until(peer, b"half")
    stage.client(how, client)
    assert ending(peer) in {"abort": {"reset"}, "close": {"end", "reset"}}[how]


@pytest.mark.parametrize("how", ["close", "abort", "end_sending"])
def test_a_client_leaves_with_half_a_head_or_nothing(
    stage: Stage, endpoint: Endpoint, client: int, how: str
) -> None:
    """No endpoint hears of it."""
    other = int(stage.client("connect", VIP4, PORT))
    stage.client("send", client, REQUEST[:12])
    for number in (client, other):
        stage.client(how, number)
        if how == "end_sending":
            assert stage.client("rest", number)[:12] in ("", "HTTP/1.1 400")
    wait_for(lambda: stage.status()["sessions"] == 0, "no session is left")
    assert stage.status()["busy"] == stage.status()["idle"] == 0


@KERNEL
@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_an_endpoint_leaves_before_its_response(
    stage: Stage, endpoint: Endpoint, client: int, kernel: int, how: str
) -> None:
    """503, as Envoy has it, and the client's connection lives on."""
    peer = asked(stage, endpoint, client, kernel)
    leave(peer, how)
    assert stage.client("read", client)[0] == 503
    stage.client("send", client, REQUEST)
    peer = endpoint.accept()
    until(peer, b"\r\n\r\n")
    peer.sendall(WHOLE)
    assert stage.client("read", client)[0] == 200


@KERNEL
@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_an_endpoint_leaves_within_its_response(
    stage: Stage, endpoint: Endpoint, client: int, kernel: int, how: str
) -> None:
    """The client's connection ends too, and cannot be taken for whole."""
    peer = asked(stage, endpoint, client, kernel)
    peer.sendall(HEAD + b"do")
    assert stage.client("head", client) == "HTTP/1.1 200 OK"
    assert stage.client("take", client, 2) == "do"
    leave(peer, how)
    assert stage.client("at_end", client)


@KERNEL
@pytest.mark.parametrize("how", ["half", "close"])
def test_an_endpoint_that_leaves_after_its_response(
    stage: Stage, endpoint: Endpoint, client: int, kernel: int, how: str
) -> None:
    """The response is whole, and the next request goes elsewhere: its connection is not used again."""
    peer = asked(stage, endpoint, client, kernel)
    peer.sendall(WHOLE)
    leave(peer, how)
    assert stage.client("read", client)[::4] == [200, 4]
    if how == "half":
        assert ending(peer) in ("end", "reset")
    wait_for(lambda: stage.status()["idle"] == stage.status()["busy"] == 0, "it is given up")
    stage.client("send", client, REQUEST)
    peer = endpoint.accept()
    until(peer, b"\r\n\r\n")
    peer.sendall(WHOLE)
    assert stage.client("read", client)[0] == 200


@pytest.mark.parametrize("how", ["half", "close"])
def test_a_response_that_ends_with_its_connection(
    stage: Stage, endpoint: Endpoint, client: int, how: str
) -> None:
    """Its end is the client's."""
    stage.client("send", client, REQUEST)
    peer = endpoint.accept()
    until(peer, b"\r\n\r\n")
    peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    leave(peer, how)
    assert stage.client("rest", client).endswith("all of it")
    with suppress(OSError):
        assert how == "close" or ending(peer) in ("end", "reset")
