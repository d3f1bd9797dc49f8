# SPDX-License-Identifier: Apache-2.0
"""Paths as the gate rewrites them, and as Envoy does, which is the oracle."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runtime.model.http import RouteTable
from runtime.plan.normalise import normalised, normalised_head
from runtime.plan.walk import route
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_routes import compile_routes
from tests.plan.envoy_oracle import AT_ONCE, Envoy, configuration, envoy

Rewrite = Callable[[bytes], tuple[bool, bytes]]
REWRITTEN = re.compile(
    rb"%(2[de]|3\d|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])|/\.{1,2}(?=/|$)", re.IGNORECASE
)
# Controls, what is no escape, dots that have parameters, backslashes and fragments.
NOBODYS = re.compile(rb"%([01].|7f|(?![0-9a-f]{2}))|/(\.|%2e){1,2};|[\\#]", re.IGNORECASE)
PIECES = (
    "/", "/", ".", "..", "%2e", "%2E", "a", "b.c", "...", "%7e", "%41", "%5f", "%2D", "%39", "%2f", "%5C", "%25",
    "%252e", "%c3%a9", "%20", ";x=1", "~", "@", "%3b",
)  # fmt: skip
TABLE = compile_routes(RouteTable(name="t"))
ODD = (*PIECES, "%00", "%0a", "%7F", "%g1", "%4", "%", "\\", "#")


def paths(pieces: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=9).map(lambda found: "/" + "".join(found))


@pytest.fixture(scope="module")
def rewrite(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Rewrite:
    target = tmp_path_factory.mktemp("normalise") / "normalise.so"
    source = checkout / "runtime/gate/normalise.c"
    options = ["-O1", "-shared", "-fPIC", "-Wall", "-Werror", f"-I{checkout}/bpf/include"]
    subprocess.run(["clang", *options, "-o", target, source], check=True)
    library = ctypes.CDLL(str(target))
    library.normalise.restype = ctypes.c_bool

    def run(head: bytes) -> tuple[bool, bytes]:
        room = ctypes.create_string_buffer(head, len(head))
        return library.normalise(room, ctypes.c_size_t(len(head))), room.raw

    return run


@pytest.fixture(scope="module")
def oracle(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    def tells_paths(table: RouteTable) -> dict[str, Any]:
        header = {"header": {"key": "x-target", "value": "%REQ(:PATH)%"}}
        route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
        host = {"name": "all", "domains": ["*"], "routes": [route]}
        host["response_headers_to_add"] = [header]
        return {**configuration(table), "virtual_hosts": [host]}

    directory = tmp_path_factory.mktemp("envoy")
    with envoy(checkout / ".venv/bin/envoy", directory, make=tells_paths) as running:
        running.load(RouteTable(name="routes"))
        yield running


def head_of(path: bytes) -> bytes:
    return b"GET %s?q=/../%%41 HTTP/1.1\r\nHost:  x\r\nX: /../a\r\n\r\nbody" % path


def rewritten(rewrite: Rewrite, path: bytes) -> bytes:
    """The path as it is then; all else is as it was, and where it was."""
    head = head_of(path)
    changed, found = rewrite(head)
    assert len(found) == len(head)
    assert changed == (found != head)
    new = found[4 : found.index(b"?")]
    gap = len(path) - len(new)
    assert found == head_of(new).replace(b"Host:", b"Host:" + b" " * gap)
    return new


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(paths(PIECES), min_size=1, max_size=AT_ONCE))
def test_paths_become_what_envoy_makes_of_them(
    rewrite: Rewrite, oracle: Envoy, some: list[str]
) -> None:
    answers = oracle.ask([f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in some])
    for path, answer in zip(some, answers, strict=True):
        new = rewritten(rewrite, path.encode())
        if NOBODYS.search(path.encode()):
            assert new == path.encode()
            continue
        assert (answer.status, answer.target) == (200, new.decode()), path
        assert not REWRITTEN.search(new)  # or it would be looked at again, and again


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text("/.;%2ea!$&'()*+,=:@~", max_size=8), min_size=1, max_size=AT_ONCE))
@example(["..;/b", ".;x", "a/..;", "a/.;?", "..;x=1/y"])
def test_what_the_tables_take_as_it_stands_envoy_leaves_so(oracle: Envoy, some: list[str]) -> None:
    heads = [f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in some]
    taken = [
        (p, h) for p, h in zip(some, heads, strict=True) if route(TABLE, h).verdict is Verdict.OK
    ]
    for (path, _), answer in zip(taken, oracle.ask([head for _, head in taken]), strict=True):
        assert (answer.status, answer.target) == (200, f"/{path}")


@settings(max_examples=500, deadline=None)
@given(paths(ODD))
def test_what_envoy_refuses_or_nobody_understands_stays(rewrite: Rewrite, path: str) -> None:
    new = rewritten(rewrite, path.encode())
    assert new == (normalised(path.encode()) or path.encode())
    if NOBODYS.search(path.encode()):
        assert new == path.encode()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /a/../b HTTP/1.0\r\n\r\n",  # no header has room
        b"GET http://x/a/../b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_there_is_nothing_to_do_about_stays(rewrite: Rewrite, head: bytes) -> None:
    assert rewrite(head) == (False, head)


def test_heads_are_rewritten_with_the_rest_as_it_is() -> None:
    head = b"GET /a/../%62?q=%41 HTTP/1.1\r\nHost: /../x\r\n\r\n"
    assert normalised_head(head) == b"GET /b?q=%41 HTTP/1.1\r\nHost: /../x\r\n\r\n"
    assert normalised_head(b"GET /a HTTP/1.1\r\n\r\n") is None
    assert normalised_head(b"GET /a/..;x HTTP/1.1\r\n\r\n") is None
