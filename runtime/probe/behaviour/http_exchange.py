# SPDX-License-Identifier: Apache-2.0
"""HTTP through the path: one keep-alive connection, each request routed to an upstream of its own."""

from __future__ import annotations

import socket

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import check, expect, expect_bytes
from runtime.probe.behaviour.exchange import Exchange
from runtime.probe.behaviour.outcome import BrokenError, InconclusiveError
from runtime.probe.behaviour.sockets import Counter

_PATHS = (b"/a1", b"/b1", b"/a2", b"/other", b"/b2", b"/a3")
_END = b"\r\n\r\n"


@check(
    "http.exchange",
    consequence="HTTP cannot be routed in the kernel: it goes by the compat path",
    remedy="see the checks of sockmap.* for what this kernel does wrongly",
)
def http_exchange(bench: Bench) -> None:
    _exchange(bench, home=False)
    bench.saw(f"{len(_PATHS)} requests on one connection routed one by one, answers by the gate")
    if not bench.ingress:
        return
    bench.detach()
    try:
        _exchange(bench, home=True)
    except (BrokenError, InconclusiveError) as error:
        bench.look(f"answers into the client's queue: {error}", fine=False)
        bench.saw("the path works with answers by the gate")
    else:
        bench.saw("the same with answers straight into the client's receive queue")


def _exchange(bench: Bench, *, home: bool) -> None:
    exchange = Exchange(bench, home=home)
    client, gate = exchange.client()
    for path in _PATHS:
        letter = path[1:2]
        request = b"GET " + path + b" HTTP/1.1\r\nHost: probe.example\r\n\r\n"
        client.sendall(request)
        server = exchange.servers.get(letter, gate)
        response = _serve(bench, server, request, name=letter)
        if server is not gate and not home:
            _relay(bench, exchange.upstreams[letter], gate, size=len(response))
        _expect_response(bench, client, response)
    routed = sum(path[1:2] in exchange.servers for path in _PATHS)
    seen = exchange.sockets.count(Counter.REDIRECTED)
    expect("requests routed in the kernel", expected=routed, seen=seen)


def _serve(bench: Bench, server: socket.socket, request: bytes, *, name: bytes) -> bytes:
    """Be a server for one request: its body tells who answered."""
    head = bytearray()
    while not head.endswith(_END):
        head += bench.receive(server, 1, what=f"a request at {name.decode()}") or _END
    expect_bytes(f"the request at {name.decode()}", sent=request, received=bytes(head))
    body = b"answered by " + name + b", which was asked " + request.split()[1] + b"\n"
    head = bytearray(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
    response = bytes(head) + b"Content-Length: %d\r\n\r\n" % len(body) + body
    server.sendall(response)
    return response


def _relay(bench: Bench, upstream: socket.socket, gate: socket.socket, *, size: int) -> None:
    """Be the gate: what an upstream answers goes to the client's connection."""
    gate.sendall(bench.receive(upstream, size, what="an answer at the gate's upstream socket"))


def _expect_response(bench: Bench, client: socket.socket, response: bytes) -> None:
    """Be an HTTP client: read the head, then as much as it announces."""
    head = bytearray()
    while not head.endswith(_END):
        byte = bench.receive(client, 1, what="a response head at the client")
        if not byte:
            raise BrokenError(
                "a response", expected="a head", seen=f"the end after {bytes(head)!r}"
            )
        head += byte
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    body = bench.receive(client, length, what="a response body at the client")
    expect_bytes("the response", sent=response, received=bytes(head) + body)
