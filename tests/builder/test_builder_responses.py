# SPDX-License-Identifier: Apache-2.0
"""The automaton that reads a response's head: what it takes, and that it is the one compiled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.responses import TARGET, read, render

GOOD = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"


def test_the_header_is_the_generated_one() -> None:
    assert TARGET.read_text(encoding="ascii") == render()


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (GOOD, 5),
        (b"HTTP/1.1 404 \r\ncontent-LENGTH:\t0\r\n\r\n", 0),
        (b"HTTP/1.1 503 a b\r\nContent-Lengthy: 7\r\nContent-Length: 1234567\r\n\r\n", 1234567),
        (b"HTTP/1.1 200 OK\r\nUpgraded: x\r\nConnections: close\r\nContent-Length: 10\r\n\r\n", 10),
        (b"HTTP/1.1 200 \xc3\xa9\r\nx:\r\nContent-Length: 10\r\n\r\n", 10),
    ],
)
def test_plain_heads_are_read(head: bytes, length: int) -> None:
    assert read(head) == (len(head), length)
    assert read(head + b"HTTP/1.1 ") == (len(head), length)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"http/1.1"),
        (b" 200 ", b" 204 "),
        (b" 200 ", b" 205 "),
        (b" 200 ", b" 304 "),
        (b" 200 ", b" 100 "),
        (b" 200 ", b" 101 "),
        (b" 200 ", b" 600 "),
        (b" 200 OK", b" 200"),
        (b"Content-Length: 5\r\n", b""),
        (b"Content-Length: 5", b"Content-Length: 5\r\nContent-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 5, 5"),
        (b"Content-Length: 5", b"Content-Length: 5 "),
        (b"Content-Length: 5", b"Content-Length: 05"),
        (b"Content-Length: 5", b"Content-Length: +5"),
        (b"Content-Length: 5", b"Content-Length: 12345678"),
        (b"Content-Length: 5", b"Content-Length:"),
        (b"Content-Length: 5", b"Content-Length : 5"),
        (b"keep-alive", b"close"),
        (b"keep-alive", b"keep-alive, upgrade"),
        (b"Server: x", b"Transfer-Encoding: chunked"),
        (b"Server: x", b"transfer-encoding: identity"),
        (b"Server: x", b"Trailer: y"),
        (b"Server: x", b"Upgrade: h2c"),
        (b"Server: x", b"Server: x\r\n y"),
        (b"Server: x", b"Server"),
        (b"Server: x", b"Ser ver: x"),
        (b"Server: x", b": x"),
        (b"Server: x", b"Server: \0"),
        (b"Server: x\r\n", b"Server: x\n"),
        (b"Server: x\r\n", b"Server: x\r"),
    ],
)
def test_whatever_can_be_read_otherwise_is_not(old: bytes, new: bytes) -> None:
    assert old in GOOD
    assert read(GOOD.replace(old, new)) is None


@given(st.integers(0, len(GOOD) - 1))
def test_no_part_of_a_head_is_a_head(cut: int) -> None:
    assert read(GOOD[:cut]) is None


@given(st.integers(0, len(GOOD) - 1), st.sampled_from([0, 10, 13, 32, 58, 127, 255]))
def test_a_byte_put_in_never_moves_the_end(at: int, byte: int) -> None:
    changed = GOOD[:at] + bytes([byte]) + GOOD[at:]
    found = read(changed)
    assert found is None or found == (len(changed), 5)
