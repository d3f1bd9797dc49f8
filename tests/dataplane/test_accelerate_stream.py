# SPDX-License-Identifier: Apache-2.0
"""Streams past TCP: whole, in order, and never faster than their reader."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import struct
import threading
import time

import pytest

from tests.dataplane.accelerate_stage import Stage, exactly, pair, readable, stage
from tests.dataplane.fixtures import cgroup, pins

__all__ = ["cgroup", "pins", "stage"]

pytestmark = pytest.mark.root
_MB = 1 << 20
_SO_MEMINFO = 55


def _ping_pong(host: str, listen: str | None) -> list[bytes]:
    client, server = pair(host, listen=listen)
    seen = []
    for size in (1, 2, 5, 100, 1448, 4097, 65536):
        for sender, reader in ((client, server), (server, client)):
            sender.sendall(bytes([size % 251]) * size)
            seen.append(exactly(reader, size))
    return seen


@pytest.mark.parametrize(
    ("host", "listen"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "::"),
        ("::ffff:127.0.0.1", "::"),
    ],
)
def test_messages_go_past_tcp_over_each_family(stage: Stage, host: str, listen: str | None) -> None:
    stage.compare(_ping_pong, host, listen)


def _duplex(total: int, seed: int, lazy: float) -> list[bool]:
    """Random sizes both ways at once, readers that sleep now and then."""
    client, server = pair()
    for sender, reader in ((client, server), (server, client), (client, server)):
        sender.sendall(b"good day")
        assert exactly(reader, 8) == b"good day"
    data = {end: random.Random(seed + i).randbytes(total) for i, end in enumerate((client, server))}
    got = {client: hashlib.sha256(), server: hashlib.sha256()}

    def send(end: socket.socket) -> None:
        dice, at = random.Random(seed), 0
        while at < total:
            size = dice.choice([1, 3, 100, 5000, 65536, _MB])
            end.sendall(data[end][at : at + size])
            at += size
            if dice.random() < 0.05:
                time.sleep(0.01)  # the reader catches up: the short-cut is taken again
        end.shutdown(socket.SHUT_WR)

    def read(end: socket.socket) -> None:
        dice = random.Random(seed + 7)
        while chunk := end.recv(dice.choice([100, 4096, 65536, _MB])):
            got[end].update(chunk)
            if dice.random() < lazy:
                time.sleep(0.005)

    threads = [threading.Thread(target=do, args=(end,)) for do in (send, read) for end in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = {end: hashlib.sha256(content).digest() for end, content in data.items()}
    return [got[client].digest() == sent[server], got[server].digest() == sent[client]]


@pytest.mark.parametrize(("seed", "lazy"), [(1, 0.0), (2, 0.02), (3, 0.2)])
def test_both_directions_at_once_stay_whole_and_in_order(
    stage: Stage, seed: int, lazy: float
) -> None:
    before = stage.accelerator.counters()
    assert stage.run(_duplex, 24 * _MB, seed, lazy) == [True, True]
    assert stage.accelerator.counters().shortened > before.shortened


def _words(count: int, *, start: int) -> bytes:
    return struct.pack(f"<{count}I", *range(start, start + count))


def _memory(sock: socket.socket) -> int:
    """Bytes of kernel memory in a socket's queues (linux/sock_diag.h: SK_MEMINFO_*)."""
    info = struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))
    return int(info[0]) + int(info[2]) + int(info[5])


def _sleeping_reader(message: int) -> tuple[int, int, int]:
    """Push until nothing more is taken; then read everything and look at each word."""
    client, server = pair()
    client.setblocking(False)
    data = memoryview(_words(16 * _MB, start=0))
    sent = last = memory = 0
    idle = time.monotonic()
    while time.monotonic() - idle < 0.5 and sent < len(data):
        try:
            sent += client.send(data[sent : sent + message])
        except BlockingIOError:
            memory = max(memory, _memory(client) + _memory(server))
            time.sleep(0.01)
        if sent != last:
            last, idle = sent, time.monotonic()
    client.shutdown(socket.SHUT_WR)
    received = exactly(server, len(data) + 1)
    if received != data[:sent]:
        wrong = next((i for i, byte in enumerate(received) if byte != data[i]), len(received))
        raise AssertionError(
            f"{sent} bytes sent, {len(received)} received, the first wrong at {wrong}"
        )
    return sent, len(received), memory


@pytest.mark.parametrize("message", [400, 4096, 65536, _MB])
def test_a_reader_that_sleeps_holds_its_sender_back(stage: Stage, message: int) -> None:
    before = stage.accelerator.counters()
    sent, received, memory = stage.run(_sleeping_reader, message)
    assert stage.accelerator.counters().shortened > before.shortened
    assert sent == received
    assert sent < 16 * _MB
    assert memory < 48 * _MB


def _alternating(rounds: int) -> int:
    """Bursts that overflow the reader and single messages in turn: many changes of way."""
    client, server = pair()
    at = 0
    for index in range(rounds):
        count = 300_000 if index % 3 == 0 else 25 if index % 3 == 1 else 1
        thread = threading.Thread(target=client.sendall, args=(_words(count, start=at),))
        thread.start()
        assert exactly(server, 4 * count) == _words(count, start=at), index
        thread.join()
        server.sendall(b"acknowledged")
        assert exactly(client, 12) == b"acknowledged"
        at += count
    return at


def test_order_is_kept_across_every_change_of_way(stage: Stage) -> None:
    stage.compare(_alternating, 60)
    after = stage.accelerator.counters()
    assert after.held_back >= 15


def _tiny_and_small(rounds: int) -> bool:
    """Messages too small to be short-cut among others that are, written without a pause."""
    client, server = pair()
    dice = random.Random(5)
    sizes = [dice.choice([1, 2, 3, 4, 50, 700]) for _ in range(rounds)]
    data = random.Random(6).randbytes(sum(sizes))

    def send() -> None:
        at = 0
        for size in sizes:
            client.sendall(data[at : at + size])
            at += size

    thread = threading.Thread(target=send)
    thread.start()
    received = exactly(server, len(data))
    thread.join()
    return received == data


def test_tiny_messages_keep_their_place(stage: Stage) -> None:
    assert stage.compare(_tiny_and_small, 100_000)


def _sendfile() -> bool:
    client, server = pair()
    content = os.urandom(3 * _MB)
    descriptor = os.memfd_create("content")
    with os.fdopen(descriptor, "r+b") as file:
        file.write(content)
        file.seek(0)
        thread = threading.Thread(target=client.sendfile, args=(file,))
        thread.start()
        received = exactly(server, len(content))
        thread.join()
    return received == content


def test_sendfile(stage: Stage) -> None:
    assert stage.compare(_sendfile)


def _peek() -> list[bytes]:
    client, server = pair()
    client.sendall(b"to be looked at")
    seen = [server.recv(5, socket.MSG_PEEK), server.recv(100)]
    client.sendmsg([b"gathered ", b"from ", b"three"])
    parts = [bytearray(3), bytearray(100)]
    size = server.recvmsg_into(parts)[0]
    return [*seen, bytes(parts[0]), bytes(parts[1][: size - 3])]


def test_peek_scatter_and_gather(stage: Stage) -> None:
    stage.compare(_peek)


def _nothing_there() -> int:
    client, server = pair()
    client.sendall(b"hello")
    exactly(server, 5)
    server.setblocking(False)
    try:
        server.recv(1)
    except BlockingIOError as error:
        return int(error.errno or 0)
    return -1


def test_an_empty_queue_says_so(stage: Stage) -> None:
    assert stage.compare(_nothing_there) == errno.EAGAIN


def _low_water() -> int:
    client, server = pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1000)
    client.sendall(b"x" * 500)
    early = readable(server, 0.2)
    client.sendall(b"x" * 500)
    return early or len(exactly(server, 1000))


def test_a_reader_with_a_low_water_mark_is_left_to_tcp(stage: Stage) -> None:
    before = stage.accelerator.counters()
    assert stage.run(_low_water, managed=False) == 1000
    assert stage.run(_low_water) == 1000
    assert stage.accelerator.counters().shortened == before.shortened


def _bulk_with_answers(seconds: float) -> tuple[bool, bool, bool]:
    """A stream one way, and all the while small answers the other way."""
    client, server = pair()
    sent, got = hashlib.sha256(), hashlib.sha256()
    said, heard = hashlib.sha256(), hashlib.sha256()
    chunk = os.urandom(_MB)

    def hear() -> None:
        while data := client.recv(50):
            heard.update(data)

    def stream() -> None:
        end, dice = time.monotonic() + seconds, random.Random(1)
        while time.monotonic() < end:
            part = memoryview(chunk)[: dice.choice([900, 30_000, _MB])]
            client.sendall(part)
            sent.update(part)
        client.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=work) for work in (hear, stream)]
    for thread in threads:
        thread.start()
    while data := server.recv(200_000):
        got.update(data)
        answer = os.urandom(random.choice([2, 20, 300]))
        server.sendall(answer)
        said.update(answer)
    server.close()
    for thread in threads:
        thread.join()
    return sent.digest() == got.digest(), said.digest() == heard.digest(), True


@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.5])
def test_bulk_leaves_the_short_cut_and_loses_nothing(stage: Stage, seconds: float) -> None:
    for _ in range(3):
        assert stage.run(_bulk_with_answers, seconds) == (True, True, True)
    if seconds > 1:
        assert stage.accelerator.counters().left >= 1
