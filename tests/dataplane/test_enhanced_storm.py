# SPDX-License-Identifier: Apache-2.0
"""Many at once, at random: each response belongs to its request, and nothing of it stays behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.kernel.gate import Gate
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import A_AND_B, PORT, Stage, table, to
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root

CONNECTIONS, REQUESTS = 24, 30
IDLE = 1000


def resident(stage: Stage) -> int:
    with Gate(stage.place.socket) as gate:
        pid = gate.status()["pid"]
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("RssAnon:")[2].split()[0]) * 1024


@contextmanager
def meanwhile(act: object) -> Iterator[None]:
    """Do something over and over in a thread, as long as the block lasts."""
    over = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not over.wait(0.02):
                act()  # type: ignore[operator]
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failed, failed


def test_random_requests_of_many_clients(routed: Stage) -> None:
    before = routed.taken()
    assert routed.client("storm", VIP4, PORT, 100, CONNECTIONS, REQUESTS, 100_000) == []
    assert routed.taken() > before
    wait_for(lambda: routed.status()["sessions"] == 0, "no session is left")
    wait_for(lambda: routed.status()["busy"] == 0, "nor an upstream in use")


def test_while_others_leave_in_the_middle(routed: Stage) -> None:
    leaver = routed.agent(routed.cgroup)

    def leave() -> None:
        for target, how in (("/a/slow/0.05", "abort"), ("/b/size/300000", "close")):
            number = leaver("connect", VIP4, PORT)
            leaver("ask", number, "/a/x")
            leaver("send", number, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
            leaver(how, number)

    with meanwhile(leave):
        assert routed.client("storm", VIP4, PORT, 200, CONNECTIONS, REQUESTS, 50_000) == []
    wait_for(lambda: routed.status()["sessions"] == 0, "no session is left")
    wait_for(lambda: routed.status()["busy"] == 0, "nor an upstream in use")


def test_while_endpoints_and_routes_change(routed: Stage) -> None:
    more = {name: [routed.backend("serve", "127.0.0.1", name) for _ in range(3)] for name in "ab"}
    turns: list[int] = []

    def change() -> None:
        turn = len(turns)
        turns.append(turn)
        for name, ports in more.items():
            chosen = [ports[turn % 3], ports[(turn + 1) % 3]]
            routed.ports.set_cluster(name, [Target("127.0.0.1", port) for port in chosen])
        extra = (to("/c", "a"),) if turn % 2 else ()
        routed.route(table(*A_AND_B.virtual_hosts[0].routes, *extra))

    change()
    with meanwhile(change):
        for seed in range(300, 320):
            assert routed.client("storm", VIP4, PORT, seed, CONNECTIONS, REQUESTS, 20_000) == []
            if len(turns) > 10:
                break
    assert len(turns) > 10


def test_an_idle_connection_costs_the_gate_little(all_objects: Path, shipped_gate: Path) -> None:
    with Stage(all_objects, shipped_gate) as stage:
        stage.serve("a", "b")
        stage.route()
        stage.ask(["/a", "/b"])
        before = resident(stage)
        for _ in range(IDLE):
            number = stage.client("connect", VIP4, PORT)
            assert stage.client("ask", number, "/a/x")[0] == 200
        assert stage.status()["sessions"] == IDLE
        each = (resident(stage) - before) / IDLE
        print(json.dumps({"bytes for each idle connection": each}))
        assert each < 2048
