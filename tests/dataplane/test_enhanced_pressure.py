# SPDX-License-Identifier: Apache-2.0
"""Many connections at once, of which some leave, while all changes: every byte, and all memory, comes back.

Only on demand: KMESH_PRESSURE says how many connections and requests on each, as 1000x100. What is
measured is recorded.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from runtime.compile.gate import compile_gate
from runtime.kernel.gate import GateError
from runtime.launch.gate import running
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_ledger import Ledger, expect, take
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.test_enhanced_storm import meanwhile, resident
from tests.dataplane.world import VIP4, Agent, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("KMESH_PRESSURE"), reason="KMESH_PRESSURE says how much"),
]

CONNECTIONS, REQUESTS = (int(n) for n in os.environ.get("KMESH_PRESSURE", "100x20").split("x"))
MOST = 100_000  # bytes of most bodies; some have 10 MB
AT_ONCE = 50  # connections of a client process
PAGE = 4096
EMPTY = Ledger(
    free=65536, waiting=0, pools=0, idle=0, unread=0, upstreams=0, sessions=0, busy=0
)  # KMESH_SLOTS


@pytest.fixture(scope="module")
def shipped_stage(
    all_objects: Path, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A stage whose gate is as users have it: sanitizers keep memory that was given back."""
    program = compile_gate(checkout, tmp_path_factory.mktemp("gate") / "gate")
    with Stage(all_objects, program) as made:
        yield made


@pytest.fixture
def shipped(shipped_stage: Stage) -> Stage:
    shipped_stage.renew()
    shipped_stage.serve("a", "b")
    shipped_stage.route()
    shipped_stage.ask(["/a", "/b"])
    return shipped_stage


def socket_pages() -> int:
    """Kernel memory of TCP's queues: `mem` of the machine's sockets."""
    text = Path("/proc/net/sockstat").read_text(encoding="ascii")
    return int(text.partition("TCP: ")[2].partition(" mem ")[2].split()[0])


@contextmanager
def watched(stage: Stage, most: dict[str, int]) -> Iterator[None]:
    def look() -> None:
        most["sockets"] = max(most.get("sockets", 0), socket_pages() * PAGE)
        with suppress(GateError):  # for a moment none listens: one hands over
            most["gate"] = max(most.get("gate", 0), resident(stage))

    with meanwhile(look):
        yield


def begin(agent: Agent, *command: object) -> None:
    assert agent.process.stdin
    name, *arguments = command
    agent.process.stdin.write(json.dumps({"do": name, "with": arguments}) + "\n")
    agent.process.stdin.flush()


def result(agent: Agent) -> object:
    """What it came to; all that waits in an agent gives up after a minute, so this ends too."""
    assert agent.process.stdout
    assert select.select([agent.process.stdout], [], [], 150)[0], "an agent does not answer"
    return json.loads(agent.process.stdout.readline())


def test_many_at_once_while_all_changes(
    shipped: Stage, record_property: Callable[[str, object], None], tmp_path: Path
) -> None:
    """Endpoints come and go, clients leave with requests outstanding, and the gate is replaced."""
    stage = shipped
    others = {name: stage.backend("serve", "127.0.0.1", name) for name in "ab"}
    ports = {name: stage.backend("serve", "127.0.0.1", name) for name in "ab"}
    leaver = stage.agent(stage.cgroup)
    start = resident(stage)
    most: dict[str, int] = {}
    turns: list[int] = []

    def change() -> None:
        turns.append(len(turns))
        for name in "ab":
            chosen = [ports[name], others[name]][: 1 + len(turns) % 2]
            stage.ports.set_cluster(name, [Target("127.0.0.1", port) for port in chosen])
        for target, how in (("/a/slow/0.05", "abort"), ("/b/size/300000", "close")):
            number = leaver("connect", VIP4, PORT)
            leaver("send", number, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
            leaver(how, number)
        time.sleep(0.1)

    clients = [stage.agent(stage.cgroup) for _ in range(max(1, CONNECTIONS // AT_ONCE))]
    with watched(stage, most), meanwhile(change):
        for n, client in enumerate(clients):
            begin(
                client, "storm", VIP4, PORT, 1000 * n, CONNECTIONS // len(clients), REQUESTS, MOST
            )
        wait_for(lambda: len(turns) >= 3, "clusters have changed three times")
        old = running(stage.place)
        stage.place = stage.place.__class__(
            program=Path(shutil.copy(stage.program, tmp_path / "next")),
            socket=stage.place.socket,
            log=stage.place.log,
            cgroup=stage.place.cgroup,
        )
        assert stage.start_gate() != old
        assert [result(client) for client in clients] == [{"result": []}] * len(clients)
    for agent in (*clients, leaver, stage.client):
        agent.process.kill()
    figures = {"connections": CONNECTIONS, "requests": CONNECTIONS * REQUESTS,
               "by the kernel": stage.taken(), "gate at start": start,
               **{f"most of {name}": value for name, value in most.items()}}  # fmt: skip
    print(json.dumps(figures))
    for name, value in figures.items():
        record_property(name, value)
    assert most["gate"] - start < CONNECTIONS * 512 * 1024
    stage.renew()
    expect(stage, EMPTY)
    assert resident(stage) < start + 8 * 1024 * 1024


def test_a_gate_that_is_killed_in_the_middle(shipped: Stage) -> None:
    """Its clients are told, and everything that it held is free for the next one."""
    stage = shipped
    client = stage.agent(stage.cgroup)
    begin(client, "storm", VIP4, PORT, 5, 40, 400, 20_000)
    before = stage.taken()
    wait_for(lambda: stage.taken() >= before + 50, "the kernel has taken some")
    old = running(stage.place)
    assert old
    os.kill(old, signal.SIGKILL)
    os.waitpid(old, 0)
    wrong = result(client)
    assert isinstance(wrong, dict)
    assert all("Error" in one or "end" in one for one in wrong["result"]), wrong
    stage.start_gate()
    stage.renew()
    found = take(stage)
    assert (found.free, found.waiting, found.unread, found.upstreams) == (EMPTY.free, 0, 0, 0)
