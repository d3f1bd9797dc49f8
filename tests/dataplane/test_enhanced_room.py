# SPDX-License-Identifier: Apache-2.0
"""How full a connection to an endpoint may be: the kernel sends what has room, the gate the rest.

A redirect out through a connection whose send buffer is full is lost without a word. The gate's
connections have small buffers here, the client a large one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.test_enhanced_streams import good
from tests.dataplane.world import VIP4

pytestmark = pytest.mark.root

_WMEM = "/proc/sys/net/ipv4/tcp_wmem"
_SMALL = "4096 16384 16384"
_SIZES = range(200, 12_200, 400)


def _in_namespace(stage: Stage, script: str) -> str:
    argv = [*stage.inside(), "sh", "-c", script]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def narrow(routed: Stage) -> Iterator[Stage]:
    """Whoever connects from now on has little room to send, and does not get more."""
    before = _in_namespace(routed, f"cat {_WMEM}")
    _in_namespace(routed, f"echo {_SMALL} > {_WMEM}")
    yield routed
    _in_namespace(routed, f"echo {before} > {_WMEM}")


def _connect(stage: Stage) -> int:
    number = int(stage.client("connect", VIP4, PORT))
    stage.client("send_buffer", number, 200_000)
    for _ in range(2):
        assert stage.client("ask", number, "/a")[0] == 200
    return number


def _taken(stage: Stage, number: int, target: str, size: int) -> bool:
    before = stage.taken()
    answer = stage.client("ask", number, target, {"method": "POST", "size": size})
    if target == "/a/echo":
        assert answer == good("a", target, size)
    else:
        assert answer[:2] == [200, "a"]
    return stage.taken() > before


def test_what_has_no_room_is_the_gates_and_arrives_whole(narrow: Stage) -> None:
    number = _connect(narrow)
    taken = [_taken(narrow, number, "/a/echo", size) for size in _SIZES]
    assert taken[0]
    assert not taken[-1]
    assert taken == sorted(taken, reverse=True)  # one size from which on there is none


def test_a_queue_that_its_endpoint_does_not_read(narrow: Stage) -> None:
    """The response comes before the request's body is read: the next request finds it in the queue."""
    number = _connect(narrow)
    fits = max(size for size in _SIZES if _taken(narrow, number, "/a/echo", size))
    for turn in range(30):
        _taken(narrow, number, "/a/early", fits if turn % 3 else _SIZES[-1])
        _taken(narrow, number, "/a/echo", fits)
    assert _taken(narrow, number, "/a/echo", 200)


def test_an_endpoint_that_sleeps_gets_all_of_it(narrow: Stage) -> None:
    number = _connect(narrow)
    for size in (200, 3000, 12_000, 500_000):
        target = "/a/lazy/0.1"
        assert narrow.client("ask", number, target, {"method": "POST", "size": size})[0] == 200
        _taken(narrow, number, "/a/echo", 200)
    assert _taken(narrow, number, "/a/echo", 200)
