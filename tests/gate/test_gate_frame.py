# SPDX-License-Identifier: Apache-2.0
"""Where messages end: for any cutting of the bytes, and no opinion but the strict one for requests."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.compile.gate import FLAGS, LLHTTP, LLHTTP_INCLUDE

MORE, END, UPGRADE, BAD = range(4)
REQUEST, RESPONSE, TO_HEAD, TO_CONNECT = range(4)
SHIM = Path(__file__).with_name("frame_shim.c")

Frame = Callable[[int, bytes, list[int]], tuple[int, int]]


def compile_shim(target: Path, *options: str, compiler: str = "gcc") -> Path:
    checkout = SHIM.parents[2]
    library = [str(path) for path in sorted(LLHTTP.glob("*.c"))]
    subprocess.run(
        [compiler, *FLAGS, "-Wno-unused-parameter", "-isystem", str(LLHTTP_INCLUDE), *options,
         "-o", str(target), str(SHIM), *(str(checkout / "runtime/gate" / one) for one in ("frame.c", "head.c")),
         *library],
        check=True, cwd=checkout,
    )  # fmt: skip
    return target


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Frame:
    target = tmp_path_factory.mktemp("frame") / "frame.so"
    library = ctypes.CDLL(str(compile_shim(target, "-shared", "-fPIC")))

    def run(kind: int, data: bytes, cuts: list[int]) -> tuple[int, int]:
        places = (ctypes.c_uint32 * len(cuts))(*cuts)
        end = ctypes.c_size_t()
        size = ctypes.c_size_t(len(data))
        count = ctypes.c_size_t(len(cuts))
        arguments = (kind, data, size, places, count)
        looked = library.frame_run(*arguments, 0, ctypes.byref(end)), end.value
        assert (library.frame_run(*arguments, 1, ctypes.byref(end)), end.value) == looked
        return looked

    return run


bodies = st.binary(max_size=60)
cut_places = st.lists(st.integers(0, 400), max_size=6).map(sorted)
rest = st.binary(max_size=20)


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in parts if p) + b"0\r\n\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    head = b"POST /x HTTP/1.1\r\nHost: y\r\n"
    if draw(st.booleans()):
        return (
            head
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + chunked(draw(st.lists(bodies, max_size=4)))
        )
    content = draw(bodies)
    return head + f"Content-Length: {len(content)}\r\n\r\n".encode() + content


@given(message=requests(), after=rest, cuts=cut_places)
def test_a_request_ends_where_it_ends_however_it_comes(
    frame: Frame, message: bytes, after: bytes, cuts: list[int]
) -> None:
    assert frame(REQUEST, message + after, cuts) == (END, len(message))
    assert frame(REQUEST, message[:-1], cuts) == (MORE, len(message) - 1)


@given(content=bodies, after=rest, cuts=cut_places, interim=st.integers(0, 1))
def test_a_response_ends_where_it_ends(
    frame: Frame, content: bytes, after: bytes, cuts: list[int], interim: int
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    assert frame(RESPONSE, head + content + after, cuts) == (END, len(head + content))
    assert frame(TO_HEAD, head + after, cuts) == (END, len(head))
    if interim:
        early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        assert frame(RESPONSE, early + head + content, cuts) == (END, len(early))


# What RFC 9112 7.1 allows, without blanks before an extension, and framing in trailers.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSIONS = rb"(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
_CHUNK = re.compile(rb"0*([1-9a-fA-F][0-9a-fA-F]*)" + _EXTENSIONS + rb"\r\n")
_LAST = re.compile(rb"0+" + _EXTENSIONS + rb"\r\n(?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r\n)*\r\n")


def strict_end(data: bytes) -> int | None:
    """Where a chunked body ends; None when it does not, or is not one."""
    at = 0
    while found := _CHUNK.match(data, at):
        size = int(found[1], 16)
        at = found.end() + size
        if data[at : at + 2] != b"\r\n":
            return None
        at += 2
    last = _LAST.match(data, at)
    return last.end() if last else None


@given(
    body=st.lists(
        st.sampled_from(
            [
                b"0",
                b"1",
                b"a",
                b"\r",
                b"\n",
                b"\r\n",
                b"\r\n",
                b";",
                b" ",
                b"x: y",
                b"00",
                b";a",
                b";a=b",
                b"0\r\n",
                b"\r\n\r\n",
                b'"',
                b"\x00",
                b"x:",
            ]
        ),
        max_size=14,
    ).map(b"".join),
    cuts=cut_places,
)
def test_a_chunked_request_has_no_end_but_the_strict_one(
    frame: Frame, body: bytes, cuts: list[int]
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: y\r\nTransfer-Encoding: chunked\r\n\r\n"
    result, end = frame(REQUEST, head + body, cuts)
    expected = strict_end(body)
    if expected is None:
        assert result != END
    else:
        assert (result, end) == (END, len(head) + expected)


@pytest.mark.parametrize(
    "body",
    [b"1;a\r\nx\r\n0;b=c\r\n\r\n", b'1;a="b;c"\r\nx\r\n0\r\n\r\n', b"0\r\nX: y\r\nz:\r\n\r\n"],
)
def test_extensions_and_trailers_belong_to_the_body(frame: Frame, body: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: y\r\nTransfer-Encoding: chunked\r\n\r\n"
    for cut in range(len(head), len(head + body)):
        assert frame(REQUEST, head + body + b"GET", [cut]) == (END, len(head + body))


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Transfer-Encoding"])
def test_trailers_say_nothing_about_framing(frame: Frame, name: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: y\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert frame(REQUEST, head + b"0\r\n" + name + b": 1\r\n\r\n", [])[0] == BAD


def test_the_other_protocol_begins_where_the_response_ends(frame: Frame) -> None:
    switch = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    assert frame(RESPONSE, switch + b"bytes", []) == (UPGRADE, len(switch))
    connected = b"HTTP/1.1 200 OK\r\n\r\n"
    assert frame(TO_CONNECT, connected + b"bytes", []) == (UPGRADE, len(connected))


@pytest.mark.slow
def test_fuzz(tmp_path: Path) -> None:
    """Memory, undefined behaviour, and that cuts do not matter; 200,000 inputs, seeded."""
    program = compile_shim(
        tmp_path / "fuzz", "-DFUZZ", "-fsanitize=fuzzer,address,undefined",
        "-fno-sanitize-recover=all", compiler="clang",
    )  # fmt: skip
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds = (
        b"POST / HTTP/1.1\r\nHost: y\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET",
        b"GET / HTTP/1.1\r\nHost: y\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nrest",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + bytes(44),
        b"POST http://y/a%2fb HTTP/1.0\r\nHost: y\r\ncontent-length: 03\r\n\r\nabcGET",
        b"GET /x HTTP/1.1\r\nHost: y\r\nX : z\r\n folded\r\n\r\n",
    )
    for number, seed in enumerate(seeds):
        for kind in range(4):
            cuts = bytes([kind, 3, 5, 7, 11, 13, 17, 19, 23])
            (corpus / f"{number}-{kind}").write_bytes(cuts + seed)
    done = subprocess.run(
        [str(program), "-runs=200000", "-seed=1", "-max_len=300", str(corpus)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
