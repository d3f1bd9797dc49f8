# SPDX-License-Identifier: Apache-2.0
"""Many clients that do all that clients do, while all changes: every byte, and all memory, comes back.

KMESH_PRESSURE says how many connections and requests on each, as 1000x100, which `make pressure` does; a small
part of that is tried without it. What is measured is printed, and written where KMESH_PRESSURE_FIGURES says.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from runtime.kernel.datapath import DataPath
from runtime.kernel.gate import GateError
from runtime.kernel.http_ports import HttpPorts
from runtime.launch.gate import running, start_gate
from tests.dataplane.enhanced_ledger import Ledger, expect, take
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.test_enhanced_storm import meanwhile, resident
from tests.dataplane.world import VIP4, Agent, end_agent, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

CONNECTIONS, REQUESTS = (int(n) for n in os.environ.get("KMESH_PRESSURE", "200x20").split("x"))
MOST = 10_000_000  # bytes of the largest bodies
AT_ONCE = 50  # connections of a client process
PAGE = 4096
HANG = 5.0  # seconds without a byte, unless clients and endpoints make each other wait as long
LONGEST = "longest wait for a byte, s"
EMPTY = Ledger(
    free=65536, waiting=0, pools=0, idle=0, unread=0, upstreams=0, sessions=0, busy=0, under_way=0
)  # KMESH_SLOTS
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shipped_stage(all_objects: Path, shipped_gate: Path) -> Iterator[Stage]:
    """A stage whose gate is as users have it."""
    with Stage(all_objects, shipped_gate) as made:
        yield made


@pytest.fixture
def shipped(shipped_stage: Stage) -> Stage:
    shipped_stage.renew()
    shipped_stage.serve("a", "b", "c")
    shipped_stage.route(table(to("/a", "a"), to("/b", "b"), to("/c", "c")))
    shipped_stage.ask(["/a", "/b", "/c"])
    return shipped_stage


def memory(stage: Stage) -> dict[str, int]:
    """Bytes: of TCP's queues and slabs of the machine, and of the gate alone."""
    text = Path("/proc/net/sockstat").read_text(encoding="ascii")
    found = {"TCP memory": int(text.partition("TCP: ")[2].partition(" mem ")[2].split()[0]) * PAGE}
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found["slab"] = int(text.partition("Slab:")[2].split()[0]) * 1024
    with suppress(GateError, OSError):  # for a moment none listens: one hands over
        found["gate anonymous"] = resident(stage)
        text = Path(f"/proc/{running(stage.place)}/smaps_rollup").read_text(encoding="ascii")
        found["gate PSS"] = int(text.partition("Pss:")[2].split()[0]) * 1024
    return found


@contextmanager
def watched(stage: Stage, most: dict[str, int]) -> Iterator[None]:
    def look() -> None:
        for name, value in memory(stage).items():
            most[name] = max(most.get(name, 0), value)
        time.sleep(0.2)

    with meanwhile(look):
        yield


def begin(agent: Agent, command: str, *arguments: object) -> None:
    assert agent.process.stdin
    agent.process.stdin.write(json.dumps({"do": command, "with": arguments}) + "\n")
    agent.process.stdin.flush()


def result(agent: Agent, seconds: float = 600) -> Any:
    """What it came to; all that waits in an agent gives up after a minute without a byte, so this ends too."""
    assert agent.process.stdout
    assert select.select([agent.process.stdout], [], [], seconds)[0], "an agent does not answer"
    return json.loads(agent.process.stdout.readline())["result"]


class Turmoil:
    """What happens while clients are at work: endpoints die, and the daemon, and the gate is replaced."""

    def __init__(self, stage: Stage, scratch: Path, ports: Mapping[str, list[int]]) -> None:
        self._stage, self._scratch = stage, scratch
        self.counts: Counter[str] = Counter()
        self._mortal = stage.agent()
        self.ports = {**ports, "c": [self._mortal("serve", "127.0.0.1", "c")]}
        self._daemon = self._start_daemon()

    def _start_daemon(self) -> subprocess.Popen[str]:
        stage, places = self._stage, json.dumps(self.ports)
        script = str(HERE / "pressure_daemon.py")
        command = [sys.executable, script, str(stage.objects), str(stage.pins), places]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "0\n"
        return process

    def act(self) -> None:
        turn = self.counts["turns"]
        self.counts["turns"] += 1
        if turn % 4 == 1:
            self._kill_endpoint()
        if turn % 6 == 2:
            self._kill_daemon()
        if turn % 8 == 3:
            self._replace_gate()
        time.sleep(0.3)

    def _kill_endpoint(self) -> None:
        end_agent(self._mortal)
        self._mortal = self._stage.agent()
        self._mortal("serve", "127.0.0.1", "c", self.ports["c"][0])
        self.counts["endpoints killed"] += 1

    def _kill_daemon(self) -> None:
        self.end()
        self._daemon = self._start_daemon()
        self.counts["daemons killed"] += 1

    def _replace_gate(self) -> None:
        target = self._scratch / f"gate-{self.counts['gates replaced']}"
        program = Path(shutil.copy(self._stage.program, target))
        place = self._stage.place
        self._stage.place = place.__class__(
            program=program, socket=place.socket, log=place.log, cgroup=place.cgroup
        )
        start_gate(self._stage.path, self._stage.place)
        self.counts["gates replaced"] += 1

    def end(self) -> None:
        """SIGKILL, wherever the daemon is."""
        self._daemon.kill()
        self._daemon.wait()
        assert self._daemon.stdout
        self._daemon.stdout.close()


@contextmanager
def turmoil(stage: Stage, scratch: Path, ports: Mapping[str, list[int]]) -> Iterator[Turmoil]:
    """The stage lets go of the path, which daemons hold meanwhile, and has it back afterwards."""
    stage.path.close()
    made = Turmoil(stage, scratch, ports)
    try:
        with meanwhile(made.act):
            yield made
    finally:
        made.end()
        stage.path = DataPath.open(stage.objects, pins=stage.pins, path="enhanced")
        stage.stack.callback(stage.path.destroy)
        stage.ports = HttpPorts(stage.path.maps)


def press(stage: Stage, *places: tuple[str, int, str]) -> dict[str, Any]:
    """Counts of clients, each at one of these places, together; fails with what went wrong for any of them."""
    began, count = time.monotonic(), max(1, CONNECTIONS // AT_ONCE)
    script = HERE / "pressure_agent.py"
    clients = [stage.world.agent(stage.cgroup, script=script) for _ in range(count)]
    stage.agents.extend(clients)
    for n, client in enumerate(clients):
        begin(client, "press", places, 1000 * n, CONNECTIONS // count, REQUESTS, MOST)
    found = [result(client, 3000) for client in clients]
    for client in clients:
        end_agent(client)
    wrong = [one for each in found for one in each["wrong"]]
    assert not wrong, f"{len(wrong)}: {wrong[:5]}"
    counts: Counter[str] = Counter()
    for each in found:
        counts.update(each["counts"])
    return {
        **counts,
        LONGEST: round(max(each["longest"] for each in found), 3),
        "seconds": round(time.monotonic() - began, 1),
    }


def test_many_at_once_while_all_changes(shipped: Stage, tmp_path: Path) -> None:
    stage, most = shipped, dict[str, int]()
    ports = {name: [stage.agent()("serve", "127.0.0.1", name) for _ in "12"] for name in "ab"}
    own = press(stage, *(("127.0.0.1", port, name) for name in ports for port in ports[name]))
    start, taken = memory(stage), stage.taken()
    with turmoil(stage, tmp_path, ports) as around, watched(stage, most):
        figures = press(stage, (VIP4, PORT, "abc"))
        wait_for(lambda: around.counts["gates replaced"] >= 1, "the gate was replaced", seconds=300)
    figures["taken by the kernel"] = stage.taken() - taken
    stage.renew()
    expect(stage, EMPTY)
    kept = {"start": start, "most": most, "end": memory(stage)}
    alone = {what: own[what] for what in (LONGEST, "seconds")}
    figures = {
        "connections": CONNECTIONS,
        **figures,
        **around.counts,
        "alone": alone,
        "memory": kept,
    }
    print(json.dumps(figures, indent=1))
    if target := os.environ.get("KMESH_PRESSURE_FIGURES"):
        Path(target).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    assert figures[LONGEST] < max(HANG, 4 * own[LONGEST]), "a client waited without end, or nearly"
    assert kept["end"]["TCP memory"] < start["TCP memory"] + 8 * 1024 * 1024
    assert most["gate anonymous"] - start["gate anonymous"] < CONNECTIONS * 512 * 1024
    assert kept["end"]["gate anonymous"] < start["gate anonymous"] + 8 * 1024 * 1024


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
    assert all("Error" in one or "end" in one for one in wrong), wrong
    stage.start_gate()
    stage.renew()
    found = take(stage)
    assert (found.free, found.waiting, found.unread, found.upstreams) == (EMPTY.free, 0, 0, 0)
