# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1.1 server that misbehaves as its paths say, one thread a connection.

Bodies are a function of their length, so that either end can tell a wrong byte.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

_LONG = 3600.0  # with a time-out sockets do not block, and may be short-cut
PATTERN = bytes(range(256)) * 257  # 65,792 bytes: no power of two


def body(length: int) -> bytes:
    return (PATTERN * (length // len(PATTERN) + 1))[:length]


def serve(host: str, port: int, name: str) -> int:
    """Start a server whose responses name it; returns the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.settimeout(_LONG)
    listener.listen(1024)
    threading.Thread(target=_accept, args=(listener, name), daemon=True).start()
    return int(listener.getsockname()[1])


def _accept(listener: socket.socket, name: str) -> None:
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=_serve_one, args=(peer, name), daemon=True).start()


def _serve_one(peer: socket.socket, name: str) -> None:
    peer.settimeout(_LONG)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = peer.makefile("rb")
    with peer, stream:
        try:
            while _answer(peer, stream, name):
                pass
        except (OSError, ValueError):  # the latter: a body was cut off
            pass


def read_head(stream: BinaryIO) -> tuple[str, dict[str, str]] | None:
    first = stream.readline()
    if not first:
        return None
    headers: dict[str, str] = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        key, _, value = line.decode().partition(":")
        headers[key.lower()] = value.strip()
    return first.decode().rstrip(), headers


def read_body(stream: BinaryIO, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        whole = b""
        while size := int(stream.readline(), 16):
            whole += stream.read(size)
            stream.readline()
        stream.readline()
        return whole
    return stream.read(int(headers.get("content-length", 0)))


def _answer(peer: socket.socket, stream: BinaryIO, name: str) -> bool:
    """False: the connection ends."""
    head = read_head(stream)
    if head is None:
        return False
    method, target, _ = head[0].split(" ")
    words = target.partition("?")[0].split("/")
    what, argument = words[2] if len(words) > 2 else "", words[3] if len(words) > 3 else "0"
    if what == "early":  # the response before the request's body
        _respond(peer, name, target, b"early", method)
        read_body(stream, head[1])
        return True
    if head[1].get("expect", "").lower() == "100-continue":
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if what == "lazy":
        time.sleep(float(argument))
    received = read_body(stream, head[1])
    if what in _ENDINGS:
        _ENDINGS[what](peer, name, int(argument))
        return False
    if what == "slow":
        time.sleep(float(argument))
    if what == "extra":  # at once: what comes later no proxy can tell from the next response
        start = f"HTTP/1.1 200 OK\r\nx-backend: {name}\r\ncontent-length: 5\r\n\r\n".encode()
        peer.sendall(start + b"right" + start + b"wrong")
        return True
    if what in ("chunked", "drip"):
        in_parts = _chunked if what == "chunked" else _drip
        in_parts(peer, name, target, body(int(argument)))
        return True
    answers = {"size": lambda: body(int(argument)), "echo": lambda: received}
    _respond(peer, name, target, answers.get(what, lambda: b"")(), method, closes=what == "close")
    return what != "close"


def _reset(peer: socket.socket, name: str, size: int) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _burst(peer: socket.socket, name: str, size: int) -> None:
    """As much of a body as is taken at once, and then a reset."""
    peer.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
    peer.settimeout(0.3)
    with suppress(TimeoutError):
        peer.sendall(body(size))
    _reset(peer, name, size)


def _until_close(peer: socket.socket, name: str, size: int) -> None:
    peer.sendall(f"HTTP/1.1 200 OK\r\nx-backend: {name}\r\n\r\n".encode() + body(size))


def _upgrade(peer: socket.socket, name: str, size: int) -> None:
    peer.sendall(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
    while more := peer.recv(65536):
        peer.sendall(more)


def _die(peer: socket.socket, name: str, size: int) -> None:
    """It closes, and says nothing."""


def _garbage(peer: socket.socket, name: str, size: int) -> None:
    peer.sendall(b"this is no HTTP at all\r\n\r\n")


def _cut(peer: socket.socket, name: str, size: int) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")


# What a connection ends with.
_ENDINGS: dict[str, Callable[[socket.socket, str, int], None]] = {
    "die": _die,
    "reset": _reset,
    "burst": _burst,
    "garbage": _garbage,
    "cut": _cut,
    "until-close": _until_close,
    "upgrade": _upgrade,
}


def _respond(
    peer: socket.socket,
    name: str,
    target: str,
    content: bytes,
    method: str,
    *,
    closes: bool = False,
) -> None:
    head = (
        f"HTTP/1.1 200 OK\r\nx-backend: {name}\r\nx-target: {target}\r\n"
        f"content-length: {len(content)}\r\n{'connection: close' if closes else 'x-kept: yes'}\r\n\r\n"
    )
    peer.sendall(head.encode() + (b"" if method == "HEAD" else content))


def _chunked(peer: socket.socket, name: str, target: str, content: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nx-backend: {name}\r\nx-target: {target}\r\ntransfer-encoding: chunked\r\n\r\n"
    peer.sendall(head.encode())
    for at in range(0, len(content), 5000):
        part = content[at : at + 5000]
        peer.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    peer.sendall(b"0\r\n\r\n")


def _drip(peer: socket.socket, name: str, target: str, content: bytes) -> None:
    """A response in a few pieces, with pauses."""
    head = f"HTTP/1.1 200 OK\r\nx-backend: {name}\r\nx-target: {target}\r\ncontent-length: {len(content)}\r\n\r\n"
    whole, step = head.encode() + content, max(1, (len(head) + len(content)) // 4)
    for at in range(0, len(whole), step):
        peer.sendall(whole[at : at + step])
        time.sleep(0.01)
