# SPDX-License-Identifier: Apache-2.0
"""A server with no tolerance: it records each request that it reads as RFC 9112 has it, byte for byte.

What is not plainly right is recorded as such, and ends the connection: nothing behind it is looked at.
"""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD = re.compile(
    rb"(?P<method>" + _TOKEN + rb") (?P<target>[!-~]+) HTTP/1\.[01]\r\n"
    rb"(?:"
    + _TOKEN
    + rb":[ \t]*(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?[ \t]*\r\n)*"
    rb"\r\n"
)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[ \t!-~\x80-\xff]*)?\r\n")
_TRAILERS = re.compile(rb"(?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r\n)*\r\n")

_recorded: list[tuple[str, str, str]] = []
_lock = threading.Lock()
_open: set[socket.socket] = set()


def fields(head: bytes, name: str) -> list[str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = [line.partition(":")[::2] for line in lines]
    return [value.strip(" \t") for key, value in pairs if key.lower() == name]


def end_of_body(data: bytes, at: int) -> int | None:
    """Where a request whose head ends at `at` has its end; None: more bytes are needed.

    Raises:
        ValueError: it has none that everybody agrees on.
    """
    lengths, encodings = fields(data[:at], "content-length"), fields(data[:at], "transfer-encoding")
    if len(fields(data[:at], "host")) != 1 or len(lengths) + len(encodings) > 1:
        raise ValueError("host or length")
    if lengths:
        if not re.fullmatch("[0-9]+", lengths[0]):
            raise ValueError("content-length")
        end = at + int(lengths[0])
        return end if end <= len(data) else None
    if encodings and encodings[0].lower() != "chunked":
        raise ValueError("transfer-encoding")
    return _end_of_chunks(data, at) if encodings else at


def _end_of_chunks(data: bytes, at: int) -> int | None:
    while found := _CHUNK.match(data, at):
        size = int(found[1], 16)
        if not size:
            last = _TRAILERS.match(data, found.end())
            if not last and b"\r\n\r\n" in data[found.end() - 2 :]:
                raise ValueError("trailers")
            return last.end() if last else None
        at = found.end() + size + 2
        if len(data) >= at and data[at - 2 : at] != b"\r\n":
            raise ValueError("chunk")
    if b"\n" in data[at:]:
        raise ValueError("chunk size")
    return None


def record(host: str, name: str) -> int:
    """Start a recorder; the port."""
    listener = socket.create_server((host, 0), backlog=512)

    def accept() -> None:
        while True:
            peer, _ = listener.accept()
            _open.add(peer)
            threading.Thread(target=_serve, args=(peer, name), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def _note(name: str, kind: str, data: bytes) -> None:
    with _lock:
        _recorded.append((name, kind, data.decode("latin-1")))


def _serve(peer: socket.socket, name: str) -> None:
    data, kind = b"", "part"
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while more := peer.recv(1 << 16):
            data += more
            data = _answer(peer, name, data)
    except ValueError as error:
        kind = f"bad {error}"
    except OSError:
        pass
    if data:
        _note(name, kind, data)
    _open.discard(peer)  # by now all of it is recorded
    peer.close()


def _answer(peer: socket.socket, name: str, data: bytes) -> bytes:
    """Answer what is whole; the rest."""
    while data:
        found = _HEAD.match(data)
        if not found:
            if b"\r\n\r\n" in data or b"\n\n" in data or len(data) > 100_000:
                raise ValueError("head")
            return data
        end = end_of_body(data, found.end())
        if end is None:
            return data
        _note(name, "whole", data[:end])
        data = data[end:]
        start = b"HTTP/1.1 200 OK\r\nx-backend: " + name.encode() + b"\r\ncontent-length: 0\r\n\r\n"
        with suppress(OSError):  # it is recorded, and who has gone is seen by reading on
            peer.sendall(start)
    return data


def recorded() -> list[tuple[str, str, str]]:
    """What has come since the last call: the recorder's name, "whole" or why not, and the bytes."""
    with _lock:
        found = list(_recorded)
        _recorded.clear()
    return found


def connections() -> int:
    """How many are open, of all recorders: what came on the others is recorded."""
    return len(_open)
