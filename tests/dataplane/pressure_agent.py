# SPDX-License-Identifier: Apache-2.0
"""Clients that do all that clients do at random, and look at every byte that they get (see agent.py)."""

from __future__ import annotations

import hashlib
import io
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.dataplane import http_backend
from tests.dataplane.http_agent import request

WAIT = 60  # seconds without a byte after which a client gives up
PIECE = 65536
_RESET = struct.pack("ii", 1, 0)


class _Watched(io.RawIOBase):
    """A socket's bytes, as slowly as its reader likes, and the longest that it waited for one."""

    def __init__(self, sock: socket.socket, pause: float) -> None:
        self._sock, self._pause = sock, pause
        self.longest = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._pause:
            time.sleep(self._pause)
            buffer = memoryview(buffer)[:16384]
        start = time.monotonic()
        try:
            return self._sock.recv_into(buffer)
        finally:
            self.longest = max(self.longest, time.monotonic() - start)


class Client:
    """One connection after the other, as each comes to its end.

    Args:
        host, port: where it connects to.
        names: the endpoints that answer there, a letter each: several are told apart by what routes requests.
        seed: of all that is done at random.
        most: bytes of the largest bodies.
    """

    def __init__(self, host: str, port: int, names: str, seed: int, most: int) -> None:
        self.where, self.names, self.seed, self.most = (host, port), names, seed, most
        self.draw = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.longest = 0.0
        self.sock: socket.socket | None = None

    def run(self, requests: int) -> None:
        """Raises AssertionError, OSError or ValueError at the first thing that is wrong."""
        kinds = (self._plain, self._mortal, self._leave, self._half, self._ends)
        if "c" not in self.names:  # nobody ends, and nobody would answer for who has
            kinds = (self._plain, self._plain, self._leave, self._half, self._plain)
        for number in range(requests):
            kind = self.draw.choices(kinds, (84, 6, 4, 3, 3))[0]
            self._connect()
            try:
                kind(number)
            except (OSError, ValueError, AssertionError) as error:
                message = f"seed {self.seed}, request {number} ({kind.__name__}): {error!r}"
                raise ValueError(message) from error
        self._close()

    def _connect(self) -> None:
        if self.sock is not None:
            return
        self.sock = socket.create_connection(self.where, timeout=WAIT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        slow = self.draw.random() < 0.1
        if slow:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.raw = _Watched(self.sock, 0.001 if slow else 0.0)
        self.stream = io.BufferedReader(self.raw, PIECE)

    def _close(self, *, reset: bool = False) -> None:
        if self.sock is None:
            return
        if reset:
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.longest = max(self.longest, self.raw.longest)
        self.sock.close()
        self.sock = None

    def _choose(self) -> str:
        """An endpoint that stays."""
        return self.draw.choice(self.names.replace("c", ""))

    def _size(self) -> int:
        """Mostly small; one in a thousand has ten megabytes."""
        draw = self.draw
        if draw.random() < 0.001:
            return self.most
        return draw.choice((0, 0, 1, 100, int(2 ** draw.uniform(0, 17))))

    def _make(self, where: str, number: int) -> tuple[str, bytes, int]:
        """A target, the request's bytes, and how many come back."""
        draw = self.draw
        kind = draw.choices(
            ("size", "chunked", "echo", "drip", "lazy", "slow"), (60, 15, 15, 4, 3, 3)
        )[0]
        up = self._size()
        down = up if kind == "echo" else self._size()
        argument = down
        if kind in ("lazy", "slow"):
            down, argument = 0, 0.05  # type: ignore[assignment]
        target = f"/{where}/{kind}/{argument}?{self.seed}.{number}"
        method = "POST" if up else "GET"
        chunked = draw.random() < 0.2 and up < 200_000
        return target, request(target, method=method, size=up, chunked=chunked), down

    def _send(self, data: bytes) -> None:
        assert self.sock
        at = 0
        while at < len(data):
            longest = len(data) - at
            if len(data) < PIECE and self.draw.random() < 0.5:
                longest = self.draw.randrange(1, 2000)
            piece = data[at : at + min(longest, PIECE)]
            start = time.monotonic()
            self.sock.sendall(piece)
            self.longest = max(self.longest, time.monotonic() - start)
            at += len(piece)
        self.counts["bytes sent"] += len(data)

    def _read(self, target: str, where: str, length: int) -> None:
        head = http_backend.read_head(self.stream)
        assert head, "the connection ended in place of a response"
        line, headers = head
        assert line.split(" ")[1] == "200", (line, headers)
        assert (headers["x-backend"], headers["x-target"]) == (where, target)
        content = http_backend.read_body(self.stream, headers)
        assert len(content) == length, f"{len(content)} bytes in place of {length}"
        assert _digest(content) == _digest(http_backend.body(length)), "other bytes"
        self.counts["bytes received"] += length
        self.counts["answered"] += 1

    def _plain(self, number: int) -> None:
        where = self._choose()
        target, data, length = self._make(where, number)
        self._send(data)
        self._read(target, where, length)

    def _mortal(self, number: int) -> None:
        """Its endpoints are killed at any moment: 503 or an end, and never another's bytes."""
        target, data, length = self._make("c", number)
        try:
            self._send(data)
            head = self.stream.peek(12)[:12]
            if head.endswith(b" 503"):
                line = http_backend.read_head(self.stream)
                assert line
                http_backend.read_body(self.stream, line[1])
                assert "x-kmesh-reason" in line[1]
                self.counts["refused"] += 1
                if line[1].get("connection") == "close":
                    self._close()
                return
            if not head:
                raise ConnectionResetError
            self._read(target, "c", length)
        except TimeoutError:
            raise
        except (ConnectionError, ValueError):
            self.counts["cut off"] += 1
            self._close()
        except AssertionError:
            if not self._is_at_end():
                raise
            self.counts["cut off"] += 1
            self._close()

    def _is_at_end(self) -> bool:
        try:
            return self.stream.read(1) == b""
        except ConnectionResetError:
            return True

    def _leave(self, number: int) -> None:
        """In the middle of a request, or of its response."""
        _, data, length = self._make(self._choose(), number)
        if self.draw.random() < 0.5:
            data = data[: self.draw.randrange(len(data))]
            self._send(data)
        else:
            self._send(data)
            if length and self.draw.random() < 0.7:
                self.stream.read(self.draw.randrange(1, length + 1))
        self.counts["left"] += 1
        self._close(reset=self.draw.random() < 0.5)

    def _half(self, number: int) -> None:
        """No more comes from it, and it reads on to the end."""
        where = self._choose()
        target, data, length = self._make(where, number)
        self._send(data)
        assert self.sock
        self.sock.shutdown(socket.SHUT_WR)
        self._read(target, where, length)
        assert self.stream.read(1) == b"", "more than the response"
        self.counts["half-closed"] += 1
        self._close()

    def _ends(self, number: int) -> None:
        """The endpoint leaves, before its response or within it."""
        what = self.draw.choice(("die", "reset", "cut"))
        self._send(request(f"/{self._choose()}/{what}/0?{self.seed}.{number}"))
        self.counts["ended by the endpoint"] += 1
        if what == "cut":
            self._read_half()
            return
        head = http_backend.read_head(self.stream)
        assert head, "the connection ended in place of a response"
        assert head[0].split(" ")[1] == "503", head
        http_backend.read_body(self.stream, head[1])
        if head[1].get("connection") == "close":
            self._close()

    def _read_half(self) -> None:
        found = b""
        with suppress(ConnectionResetError):
            while more := self.stream.read1(PIECE):
                found += more
        whole = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
        assert whole.startswith(found), found
        self._close()


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def press(
    places: list[tuple[str, int, str]], seed: int, connections: int, requests: int, most: int
) -> dict[str, Any]:
    """Many clients at once: what they counted, what went wrong, and the longest that one waited for a byte."""
    wrong = list[str]()
    clients = [Client(*places[n % len(places)], seed + n, most) for n in range(connections)]

    def work(client: Client) -> None:
        try:
            client.run(requests)
        except Exception as error:
            wrong.append(str(error))

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts: Counter[str] = Counter()
    for client in clients:
        counts.update(client.counts)
    return {
        "wrong": wrong,
        "counts": counts,
        "longest": max(client.longest for client in clients),
    }


def main() -> None:
    for line in sys.stdin:
        answer = {"result": press(*json.loads(line)["with"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
