# SPDX-License-Identifier: Apache-2.0
"""A client with keep-alive connections: one JSON command a line in, one JSON answer a line out.

It speaks HTTP over plain sockets, so that what is measured is the way and not a library.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

_SECONDS = 20.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_open: dict[str, socket.socket] = {}  # by address:port


def _connection(where: str) -> socket.socket:
    if where not in _open:
        host, _, port = where.rpartition(":")
        made = socket.create_connection((host, int(port)), timeout=_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _open[where] = made
    return _open[where]


def _exchange(connection: socket.socket, request: bytes) -> tuple[bytes, bytes]:
    """A response's head and body."""
    connection.sendall(request)
    got = b""
    while b"\r\n\r\n" not in got:
        got += _more(connection)
    head, _, body = got.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    while len(body) < (int(found[1]) if found else 0):
        body += _more(connection)
    return head, body


def _more(connection: socket.socket) -> bytes:
    got = connection.recv(65536)
    if not got:
        raise ConnectionError("the connection was closed")
    return got


def _request(
    method: str, path: str, headers: Mapping[str, str], *, host: str, size: int = 0
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {size}"] if size else []
    return "\r\n".join([*lines, "", ""]).encode() + b"x" * size


def ask(where: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """One request on the connection to a place, and how long its answer took."""
    text = _request(**request)
    connection = _connection(where)
    began = time.perf_counter_ns()
    head, body = _exchange(connection, text)
    took = (time.perf_counter_ns() - began) / 1e3
    first, *lines = head.decode("latin-1").split("\r\n")
    named = (line.partition(":") for line in lines)
    return {
        "status": int(first.split()[1]),
        "headers": {name.lower(): value.strip() for name, _, value in named},
        "body": body.decode("latin-1"),
        "us": took,
        "local": "{}:{}".format(*connection.getsockname()),
    }


def race(places: Mapping[str, str], request: Mapping[str, Any], rounds: int) -> dict[str, float]:
    """The median time of a request by each way, microseconds; the ways take turns."""
    text = _request(**request)
    took: dict[str, list[float]] = {name: [] for name in places}
    connections = {name: _connection(where) for name, where in places.items()}
    for _ in range(rounds):
        for name, connection in connections.items():
            began = time.perf_counter_ns()
            _exchange(connection, text)
            took[name].append((time.perf_counter_ns() - began) / 1e3)
    return {name: median(each) for name, each in took.items()}


def main() -> None:
    """Do as is told until the input ends."""
    calls: dict[str, Callable[..., Any]] = {"ask": ask, "race": race}
    for line in sys.stdin:
        told = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"result": calls[told["do"]](*told["with"])}
        except (OSError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
