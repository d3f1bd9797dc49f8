# SPDX-License-Identifier: Apache-2.0
"""What applications see of a short-cut connection is what they see of TCP.

Each scenario is played twice, over plain TCP and short-cut, and what it saw is compared.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import termios
import threading
import time
from typing import Any

import pytest

from tests.dataplane.accelerate_stage import Stage, exactly, pair, readable, stage
from tests.dataplane.fixtures import cgroup, pins

__all__ = ["cgroup", "pins", "stage"]
pytestmark = pytest.mark.root
_SIOCATMARK = 0x8905
_NOW = socket.MSG_DONTWAIT


def _warm(client: socket.socket, server: socket.socket) -> None:
    """Exchange messages, so that both directions are short-cut from here on."""
    for _ in range(2):
        for sender, reader in ((client, server), (server, client)):
            sender.sendall(b"good day")
            assert exactly(reader, 8) == b"good day"


def _unread(sock: socket.socket) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0])


def _try(what: Any) -> Any:
    """What a call returns, or its errno."""
    try:
        return what()
    except OSError as error:
        return errno.errorcode[error.errno] if error.errno else repr(error)


def _half_close() -> list[Any]:
    seen: list[Any] = []
    for flip in (False, True):
        one, other = reversed(pair()) if flip else pair()
        _warm(one, other)
        one.sendall(b"last words")
        one.shutdown(socket.SHUT_WR)
        seen.append(readable(other) & select.POLLIN)
        seen += [exactly(other, 100), other.recv(10), readable(other)]
        other.sendall(b"an answer to them")
        seen.append(exactly(one, 17))
        seen.append(_try(lambda one=one: one.send(b"after the end", socket.MSG_NOSIGNAL)))
        other.close()
        seen += [readable(one) & select.POLLIN, one.recv(10)]
    return seen


def test_half_close_both_ways(stage: Stage) -> None:
    assert "EPIPE" in stage.compare(_half_close)


def _urgent(size: int, *, take: bool) -> list[Any]:
    client, server = pair()
    _warm(client, server)
    client.send(b"\xff\xf4\xf2"[:size], socket.MSG_OOB)
    seen: list[Any] = [
        readable(server),
        fcntl.ioctl(server, _SIOCATMARK, bytes(4)),
        _unread(server),
    ]
    if take:
        patience = server.gettimeout()
        server.setblocking(False)  # with a timeout Python would first wait for POLLIN, in vain
        seen.append(_try(lambda: server.recv(1, socket.MSG_OOB)))
        server.settimeout(patience)
    client.sendall(b"what follows")
    end, received = time.monotonic() + 10, b""
    while not received.endswith(b"follows") and time.monotonic() < end:
        received += exactly_now(server)
    seen.append(received)
    server.sendall(b"and back")
    return [*seen, exactly(client, 8)]


def exactly_now(sock: socket.socket) -> bytes:
    """What is there at once, waiting only for something to be there."""
    readable(sock, 1)
    try:
        return sock.recv(1000, _NOW)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("take", [True, False])
def test_urgent_data(stage: Stage, size: int, take: bool) -> None:  # noqa: FBT001
    stage.compare(lambda: _urgent(size, take=take))


def _fionread() -> list[int]:
    client, server = pair()
    seen = []
    for size in (100, 2, 50, 3000, 1, 1, 40):
        for sender, reader in ((client, server), (server, client)):
            sender.sendall(bytes(size))
            readable(reader)
            seen += [_unread(reader), len(exactly(reader, size)), _unread(reader)]
    client.sendall(bytes(70))
    client.sendall(bytes(2))
    client.sendall(bytes(30))
    time.sleep(0.1)
    return [*seen, _unread(server), len(exactly(server, 50)), _unread(server)]


def test_fionread(stage: Stage) -> None:
    stage.compare(_fionread)


def _epoll(flags: int) -> list[Any]:
    client, server = pair()
    _warm(client, server)
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN | select.EPOLLRDHUP | flags)
    seen: list[Any] = [epoll.poll(0.1)]
    for message in (b"first", b"second", b"xx", b"third"):
        client.sendall(message)
        seen.append([events for _, events in epoll.poll(10)])
        seen.append(exactly(server, len(message)))
        seen.append(len(epoll.poll(0.05)))
    client.sendall(b"unread")
    seen += [len(epoll.poll(10)), len(epoll.poll(0.05))]
    client.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    seen.append([events for _, events in epoll.poll(10)])
    return [*seen, exactly(server, 100)]


@pytest.mark.parametrize("flags", [0, select.EPOLLET], ids=["level", "edge"])
def test_epoll(stage: Stage, flags: int) -> None:
    stage.compare(_epoll, flags)


def _epoll_stream(flags: int) -> tuple[int, int]:
    """A non-blocking sender that waits for room, a non-blocking reader that waits for data."""
    client, server = pair()
    for end in (client, server):
        end.setblocking(False)
    total, sent = 20 << 20, 0
    received = bytearray()
    data = memoryview(struct.pack(f"<{total // 4}I", *range(total // 4)))
    epoll = select.epoll()
    epoll.register(client, select.EPOLLOUT | flags)
    epoll.register(server, select.EPOLLIN | flags)
    stalls = 0
    while len(received) < total and stalls < 3:
        stalls = 0 if epoll.poll(5) else stalls + 1
        for _ in range(200):
            try:
                sent += client.send(data[sent : sent + 30_000]) if sent < total else 0
            except BlockingIOError:
                break
        try:
            while True:
                received += server.recv(20_000)
        except BlockingIOError:
            pass
        if flags == 0 and sent == total:
            epoll.modify(client, 0)
    return sent, len(received) if received == data[: len(received)] else -1


@pytest.mark.parametrize("flags", [0, select.EPOLLET], ids=["level", "edge"])
def test_non_blocking_ends(stage: Stage, flags: int) -> None:
    assert stage.compare(_epoll_stream, flags) == (20 << 20, 20 << 20)


def _reset(*, unread: bool) -> list[Any]:
    client, server = pair()
    _warm(client, server)
    if unread:
        server.sendall(b"never read")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    events = readable(server)
    seen: list[Any] = [bool(events & select.POLLERR), bool(events & select.POLLHUP)]
    seen.append(_try(lambda: server.recv(10)))
    return [*seen, _try(lambda: server.send(b"to nobody", socket.MSG_NOSIGNAL))]


@pytest.mark.parametrize("unread", [False, True])
def test_reset(stage: Stage, unread: bool) -> None:  # noqa: FBT001
    stage.compare(lambda: _reset(unread=unread))


def _reset_in_the_middle() -> list[bool]:
    client, server = pair()
    _warm(client, server)
    data = struct.pack("<1000000I", *range(1_000_000)) * 10
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(_try(lambda: client.sendall(data))))
    thread.start()
    received = exactly(server, 1_000_000)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    thread.join(20)
    return [
        received == data[:1_000_000],
        not thread.is_alive(),
        result[0] in ("EPIPE", "ECONNRESET"),
    ]


def test_reset_in_the_middle_of_a_stream(stage: Stage) -> None:
    assert stage.compare(_reset_in_the_middle) == [True, True, True]


def _closed_reader() -> list[Any]:
    client, server = pair()
    _warm(client, server)
    server.close()
    seen = [readable(client) & select.POLLIN, client.recv(10)]
    seen.append(_try(lambda: client.send(b"to nobody", socket.MSG_NOSIGNAL)))
    readable(client)
    time.sleep(0.1)
    return [*seen, _try(lambda: client.send(b"to nobody", socket.MSG_NOSIGNAL))]


def test_a_reader_that_has_closed(stage: Stage) -> None:
    stage.compare(_closed_reader)


def _close_with_data_on_the_way(rounds: int) -> int:
    """Send and close at once: everything arrives, then the end."""
    whole = 0
    for index in range(rounds):
        client, server = pair()
        _warm(client, server)
        client.sendall(bytes([index % 256]) * 20_000)
        client.close()
        whole += exactly(server, 30_000) == bytes([index % 256]) * 20_000
        server.close()
    return whole


def test_close_right_after_sending(stage: Stage) -> None:
    assert stage.compare(_close_with_data_on_the_way, 200) == 200
