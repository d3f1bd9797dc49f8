# SPDX-License-Identifier: Apache-2.0
"""Segments as a network may bring them: in pieces, again, overlapping. No byte is ever wrong.

A verdict program is given segments uncut (`watch_order` in bpf/home/home.bpf.c): where responses go
home, what overlaps may end an exchange, but never reaches a client as if it were right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from runtime.kernel.home import bring_home
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.http_backend import body
from tests.dataplane.raw_server import HOST, RawServer
from tests.dataplane.raw_server import PORT as SERVED
from tests.dataplane.redirects import skip_where_redirects_are_broken
from tests.dataplane.world import VIP4

pytestmark = pytest.mark.root
_SIZE = 1000
_HEAD = f"HTTP/1.1 200 OK\r\nx-backend: raw\r\ncontent-length: {_SIZE}\r\n\r\n".encode()
_ANSWER = _HEAD + body(_SIZE)
_RIGHT = [200, "raw", "", hashlib.sha256(body(_SIZE)).hexdigest()[:16], _SIZE]


def _whole(data: bytes) -> Sequence[tuple[int, bytes]]:
    return [(0, data)]


def _halves(data: bytes) -> Sequence[tuple[int, bytes]]:
    return [(0, data[:400]), (400, data[400:])]


def _swapped(data: bytes) -> Sequence[tuple[int, bytes]]:
    return [(400, data[400:]), (0, data[:400])]


def _again(data: bytes) -> Sequence[tuple[int, bytes]]:
    return [(0, data[:400]), (0, data[:400]), (400, data[400:])]


def _overlapping(data: bytes) -> Sequence[tuple[int, bytes]]:
    return [(0, data[:400]), (200, data[200:])]


@pytest.fixture(scope="module", params=["gate", "home"])
def shared_stage(
    request: pytest.FixtureRequest, all_objects: Path, gate_program: Path
) -> Iterator[Stage]:
    if request.param == "home":
        skip_where_redirects_are_broken()
    with Stage(all_objects, gate_program) as made:
        made.way_home = request.param  # type: ignore[attr-defined]
        if request.param == "home":
            bring_home(made.path, all_objects)
        yield made


@pytest.mark.parametrize("cut", [_whole, _halves, _swapped, _again, _overlapping])
def test_segments(stage: Stage, cut: object) -> None:
    home = stage.way_home == "home"  # type: ignore[attr-defined]
    with RawServer(stage.world.netns, _ANSWER, cut):  # type: ignore[arg-type]
        stage.ports.set_cluster("raw", [Target(HOST, SERVED)])
        stage.route(table(to("/", "raw")))
        for _ in range(3):
            number = stage.client("connect", VIP4, PORT)
            for _ in range(3):
                try:
                    answer = stage.client("ask", number, "/")
                except AssertionError:  # the connection was reset
                    answer = None
                if answer != _RIGHT:
                    assert home, answer
                    assert cut is _overlapping, answer
                    assert answer is None or answer[0] in (502, "end"), answer
                    break
            stage.client("close", number)
