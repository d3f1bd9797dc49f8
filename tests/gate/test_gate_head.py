# SPDX-License-Identifier: Apache-2.0
"""Which requests of a waypoint's can be told from what follows: only those that no two readers end differently."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gate.test_gate_frame import compile_shim

MORE, PLAIN, UNSURE = range(3)
Judge = Callable[[bytes], int]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
LINE = re.compile(TOKEN + rb" [\x21-\x7e]+ HTTP/1\.([01])")
FIELD = re.compile(b"(" + TOKEN + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*")  # fmt: skip


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    target = tmp_path_factory.mktemp("head") / "head.so"
    library = ctypes.CDLL(str(compile_shim(target, "-shared", "-fPIC")))
    return lambda data: int(library.head_run(data, ctypes.c_size_t(len(data))))


def is_plain(head: bytes) -> bool:
    """RFC 9112 for a whole head, from its text and not from the code."""
    first, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    line = LINE.fullmatch(first)
    if not line or first.split(b" ")[0].upper() in (b"CONNECT", b"PRI"):
        return False
    found = [FIELD.fullmatch(field) for field in fields]
    pairs = [(one[1].lower(), one[2]) for one in found if one]
    lengths = [value for name, value in pairs if name == b"content-length"]
    codings = [value.lower() for name, value in pairs if name == b"transfer-encoding"]
    return (
        all(found)
        and len(lengths) <= 1
        and all(re.fullmatch(rb"\d{1,18}", one) for one in lengths)
        and codings in ([], [b"chunked"])
        and not (codings and (lengths or line[1] == b"0"))
    )


words = st.sampled_from([
    b"Content-Length", b"Transfer-Encoding", b"Host", b"X", b":", b": ", b" ", b"\t", b"3", b"03",
    b"+3", b"chunked", b"Chunked", b"x, chunked", b"\r\n", b"\n", b"\r", b"\0", b"\x80", b"GET /",
])  # fmt: skip
starts = st.sampled_from([
    b"GET / HTTP/1.1", b"POST /a%2f HTTP/1.0", b"GET http://x/../y HTTP/1.1", b"CONNECT x:1 HTTP/1.1",
    b"PRI * HTTP/2.0", b"GET  / HTTP/1.1", b"GET / HTTP/1.2", b" GET / HTTP/1.1", b"\r\nGET / HTTP/1.1",
    b"GET /\x80 HTTP/1.1", b"G@T / HTTP/1.1", b"GET / HTTP/1.1 ",
])  # fmt: skip


@given(
    start=starts,
    fields=st.lists(st.lists(words, min_size=2, max_size=4).map(b"".join), max_size=4),
)
def test_only_what_the_grammar_allows_is_plain(
    judge: Judge, start: bytes, fields: list[bytes]
) -> None:
    head = b"\r\n".join([start, *fields]) + b"\r\n\r\n"
    end = head.index(b"\r\n\r\n") + 4
    if head.startswith(b"\r\n"):
        end = len(head)
    found = judge(head[:end])
    if found == PLAIN:
        assert is_plain(head[:end])
    elif is_plain(head[:end]):  # plain to the grammar: then the parser does not know the method
        assert found == UNSURE
        pytest.fail(f"a plain head is refused: {head[:end]!r}")


@given(start=starts, at=st.integers(0, 60))
def test_a_part_is_no_more_than_the_whole(judge: Judge, start: bytes, at: int) -> None:
    head = start + b"\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    part, whole = judge(head[:at]), judge(head)
    assert whole in (PLAIN, UNSURE)
    assert part in ((MORE, PLAIN) if whole == PLAIN else (MORE, UNSURE))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GET /a/../b HTTP/1.1\r\nHost: x\r\n\r\n", PLAIN),
        (b"GET / HTTP/1.0\r\n\r\n", PLAIN),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", UNSURE),  # nobody knows how that ends
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\n", UNSURE),
        (b"\x16\x03\x01", UNSURE),  # nothing is waited for that will not come
        (b"GET / HTTP/1.1\r", MORE),
        (b"", MORE),
    ],
)
def test_particular_ones(judge: Judge, data: bytes, kind: int) -> None:
    assert judge(data) == kind


@pytest.mark.slow
def test_fuzz(tmp_path: Path) -> None:
    """Heads as they come, byte by byte, against what no plain one may have; 20,000 inputs, seeded."""
    program = compile_shim(
        tmp_path / "fuzz", "-DFUZZ_HEAD", "-fsanitize=fuzzer,address,undefined",
        "-fno-sanitize-recover=all", "-O1", compiler="clang",
    )  # fmt: skip
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds = (
        b"GET / HTTP/1.1\r\nHost: y\r\n\r\nGET",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST http://y/a%2fb HTTP/1.0\r\ncontent-length: 03\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /x HTTP/1.1\r\nHost: y\r\nX : z\r\n folded\r\n\r\n",
    )
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    words = [
        b"Content-Length:",
        b"Transfer-Encoding:",
        b"chunked",
        b"\r\n",
        b"\n",
        b" ",
        b"\t",
        b":",
    ]
    (tmp_path / "words").write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words)
    )
    done = subprocess.run(
        [str(program), "-runs=20000", "-seed=1", "-max_len=200", "-dict=words", str(corpus)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
