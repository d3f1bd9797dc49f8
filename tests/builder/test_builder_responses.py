# SPDX-License-Identifier: Apache-2.0
"""The automaton that reads a response's head: what it takes, and that it is the one compiled."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
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


Status = Callable[[bytes, int], int]
_HEAD = 2048  # KMESH_RESPONSE_HEAD


@pytest.fixture(scope="session")
def status_of(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Status:
    """The kernel's C code."""
    built = tmp_path_factory.mktemp("response") / "response.so"
    source = checkout / "tests/builder/response.c"
    options = ["-std=gnu11", "-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(
        ["gcc", *options, f"-I{checkout}/bpf/include", str(source), "-o", str(built)], check=True
    )
    found = ctypes.CDLL(os.fspath(built)).status_of
    found.argtypes, found.restype = (ctypes.c_char_p, ctypes.c_uint32), ctypes.c_uint32
    return found


def _wanted(data: bytes) -> int:
    found = read(data)
    return int(data[9:12]) if found and found[0] <= _HEAD and sum(found) == len(data) else 0


_VALUES = st.binary(max_size=40) | st.text("abc \t", max_size=200).map(str.encode)
_LINES = st.lists(
    st.tuples(
        st.sampled_from([b"Server", b"Date", b"X", b"Connection", b"Content-Type", b"Upgrade"]),
        _VALUES,
    ),
    max_size=12,
)


@settings(max_examples=600)
@given(_LINES, st.integers(0, 5), st.integers(-1, 1), st.data())
def test_the_kernels_code_reads_what_the_table_says(
    status_of: Status, lines: list[tuple[bytes, bytes]], body: int, off: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(lines)))
    lines = [*lines[:at], (b"Content-Length", b"%d" % body), *lines[at:]]
    head = b"".join(b"%s: %s\r\n" % line for line in lines)
    whole = b"HTTP/1.1 201 Created\r\n" + head + b"\r\n" + b"z" * max(0, body + off)
    assert status_of(whole, len(whole)) == _wanted(whole)


@pytest.mark.parametrize("size", range(_HEAD - 12, _HEAD + 3))
def test_heads_about_as_long_as_may_be(status_of: Status, size: int) -> None:
    start, end = b"HTTP/1.1 200 OK\r\nX: ", b"\r\nContent-Length: 1\r\n\r\n"
    whole = start + b"x" * (size - len(start) - len(end)) + end + b"!"
    assert _wanted(whole) == (200 if size <= _HEAD else 0)
    assert status_of(whole, len(whole)) == _wanted(whole)


def test_heads_of_short_lines_take_too_many_steps(status_of: Status) -> None:
    for lines in (40, 400):
        whole = b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * lines + b"Content-Length: 0\r\n\r\n"
        assert status_of(whole, len(whole)) == (200 if lines == 40 else 0)
