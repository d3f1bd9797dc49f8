# SPDX-License-Identifier: Apache-2.0
"""Many bytes go through a pipe, few do not; and what many connections cost that do nothing."""

from __future__ import annotations

import ctypes
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.test_enhanced_streams import BIG, good
from tests.dataplane.waypoint_envoy import Recorder, use_node
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root

CONNECTIONS = 10_000
_CAP_SYS_RESOURCE, _PR_CAPBSET_DROP = 24, 24


def spliced(stage: Stage) -> int:
    return stage.status()["spliced"]


def test_large_bodies_are_spliced_both_ways_and_small_ones_are_not(routed: Stage) -> None:
    number, before = routed.client("connect", VIP4, PORT), spliced(routed)
    for size in (0, 5000, 200_000):
        extra = {"method": "POST", "size": size}
        assert routed.client("ask", number, "/a/echo", extra) == good("a", "/a/echo", size)
    assert spliced(routed) == before
    for name in ("a", "b", "a"):
        before = spliced(routed)
        extra = {"method": "POST", "size": BIG}
        assert routed.client("ask", number, f"/{name}/echo", extra) == good(
            name, f"/{name}/echo", BIG
        )
        assert spliced(routed) > before + 1.8 * BIG  # up and down, but for heads and ends
        target = f"/{name}/size/{BIG}"
        assert routed.client("ask", number, target) == good(name, target, BIG)
        assert spliced(routed) > before + 2.7 * BIG
    taken = routed.taken()
    for _ in range(5):
        assert routed.client("ask", number, "/b/size/7") == good("b", "/b/size/7", 7)
    assert routed.taken() >= taken + 3  # the kernel has connections to use again


def test_a_tunnel_is_spliced_when_much_comes(routed: Stage, tmp_path: Path) -> None:
    much = bytes(range(251)) * 40_000
    with Recorder(tmp_path / "waypoint", answer=b"HTTP/1.1 200 OK\r\n\r\n" + much) as recorder:
        use_node(routed, tmp_path / "waypoint")
        try:
            number, before = routed.client("connect", VIP4, PORT), spliced(routed)
            begin = "CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n"
            routed.client("send", number, begin)
            assert routed.client("head", number).split(" ")[1] == "200"
            assert routed.client("take", number, len(much)) == much.decode("latin-1")
            down = spliced(routed)
            assert down > before
            routed.client("send", number, much.decode("latin-1"))
            wait_for(lambda: len(recorder.bytes[0]) > len(much), "all has come")
            assert recorder.bytes[0].endswith(begin.encode() + much)
            assert spliced(routed) > down
            routed.client("close", number)
        finally:
            use_node(routed, "")


def test_a_client_that_leaves_while_much_is_on_its_way(routed: Stage) -> None:
    for _ in range(3):
        number = routed.client("connect", VIP4, PORT)
        routed.client("send", number, f"GET /a/size/{BIG} HTTP/1.1\r\nHost: x\r\n\r\n")
        routed.client("take", number, 300_000)
        routed.client("abort", number)
        assert routed.ask(["/a", "/b"]) == ["a", "b"]


@pytest.fixture
def plain(all_objects: Path, shipped_gate: Path) -> Iterator[Stage]:
    """A stage whose gate is as shipped."""
    with Stage(all_objects, shipped_gate) as made:
        made.serve("a")
        made.route(table(to("/", "a")))
        yield made


def own_memory(pid: int) -> int:
    """Bytes that no other process shares."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.slow
def test_an_idle_connection_costs_less_than_2_kib(plain: Stage) -> None:
    pid = plain.status()["pid"]
    plain.ask(["/"])
    before = own_memory(pid)
    assert plain.client("many", VIP4, PORT, CONNECTIONS) == CONNECTIONS
    assert plain.status()["sessions"] >= CONNECTIONS
    each = (own_memory(pid) - before) / CONNECTIONS
    print(f"{each:.0f} bytes of its own for each of {CONNECTIONS} idle connections")
    assert each < 2048
    assert plain.ask(["/"] * 3) == ["a"] * 3


def _few_descriptors() -> None:
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_RESOURCE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))


def test_how_many_descriptors_it_may_have_is_said(gate_program: Path, tmp_path: Path) -> None:
    """Without the right to have more than the hard limit, it takes all of that, and says what it is."""
    done = subprocess.run(
        [str(gate_program), str(tmp_path), str(tmp_path / "socket")],
        preexec_fn=_few_descriptors, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "512 descriptors are all that it may have" in done.stderr
    assert "enough for about 256 connections" in done.stderr
