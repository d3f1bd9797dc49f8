# SPDX-License-Identifier: Apache-2.0
"""Restarts under load: whoever ends, and however, connections go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.kernel.datapath import DataPath
from runtime.source.update import Update
from runtime.tables.layout import DIGEST
from runtime.tables.services import ServiceTables
from tests.dataplane.world import VIP4, Agent, World, serving
from tests.tables.tables_model import service

pytestmark = pytest.mark.root

LOADER = """
import sys, time
from pathlib import Path
from runtime.kernel.datapath import DataPath
from tests.dataplane.test_dataplane_restart import picture
from runtime.tables.services import ServiceTables
path = DataPath.open(Path(sys.argv[1]), pins=Path(sys.argv[2]))
path.apply(ServiceTables(existing=path.contents()).apply(picture(int(sys.argv[4]))))
path.enroll_cgroup(Path(sys.argv[3]))
print("ready", flush=True)
time.sleep(600)
"""


def picture(port: int) -> Update:
    return Update(
        services=(service("a", VIP4),),
        workloads=tuple(serving(f"w{n}", f"127.0.1.{n}", {("a", 80): port}) for n in (1, 2, 3)),
        complete=True,
    )


@contextmanager
def load(agent: Agent) -> Iterator[Callable[[], dict[str, int]]]:
    """Connections one after another while the block runs; calling the result gives the answers."""
    stop, found = threading.Event(), dict[str, int]()

    def work() -> None:
        while not stop.is_set():
            for answer, count in agent("tally", 4, VIP4, 80, 100).items():
                found[answer] = found.get(answer, 0) + count

    worker = threading.Thread(target=work)
    worker.start()

    def answers() -> dict[str, int]:
        stop.set()
        worker.join()
        return found

    try:
        yield answers
    finally:
        answers()


@pytest.fixture
def backend(world: World) -> int:
    return world.serve((4, "0.0.0.0", "here"))["here"]


@pytest.fixture
def managed(world: World) -> Path:
    return world.cgroup()


@contextmanager
def daemon(objects: Path, pins: Path, cgroup: Path, port: int) -> Iterator[None]:
    """A process that runs the data path, killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER, str(objects), str(pins), str(cgroup), str(port)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_kill_9_and_restart_fail_no_connection(
    world: World, objects: Path, pins: Path, managed: Path, backend: int
) -> None:
    with daemon(objects, pins, managed, backend):
        agent = world.agent(managed)
        assert agent("tally", 4, VIP4, 80, 10) == {"here": 10}
    with load(agent) as answers:
        for _ in range(3):
            with daemon(objects, pins, managed, backend):
                pass
        found = answers()
    assert set(found) == {"here"}
    assert found["here"] >= 100


def test_another_layout_takes_over_and_no_connection_fails(
    world: World, objects: Path, pins: Path, managed: Path, backend: int
) -> None:
    with daemon(objects, pins, managed, backend):
        agent = world.agent(managed)
    with load(agent) as answers:
        for _ in range(3):
            home = pins / "compat"
            (home / DIGEST[:16]).rename(home / "0123456789abcdef")  # as another version left it
            path = DataPath.open(objects, pins=pins)
            path.apply(ServiceTables(existing=path.contents()).apply(picture(backend)))
            path.close()
        found = answers()
    assert set(found) == {"here"}


def test_another_layout_waits_until_all_that_it_is_to_have_is_there(
    world: World, objects: Path, pins: Path, managed: Path, backend: int
) -> None:
    """Routes, for one: a service is not to be balanced past them meanwhile."""
    with daemon(objects, pins, managed, backend):
        agent = world.agent(managed)
    other = world.serve((4, "0.0.0.0", "there"))["there"]
    home = pins / "compat"
    (home / DIGEST[:16]).rename(home / "0123456789abcdef")
    path = DataPath.open(objects, pins=pins)
    path.waits = True
    tables = ServiceTables(existing=path.contents())
    path.apply(tables.apply(picture(other)))
    assert agent("tally", 4, VIP4, 80, 10) == {"here": 10}
    path.apply(())
    assert agent("tally", 4, VIP4, 80, 10) == {"here": 10}
    path.turn_over()
    assert agent("tally", 4, VIP4, 80, 10) == {"there": 10}
    path.destroy()


def test_what_vanished_meanwhile_is_gone_with_the_first_picture(
    world: World, objects: Path, pins: Path, managed: Path, backend: int
) -> None:
    many = tuple(service(f"s{n}", f"10.97.{n // 200}.{1 + n % 200}") for n in range(5000))
    with daemon(objects, pins, managed, backend):
        pass
    path = DataPath.open(objects, pins=pins)
    whole = picture(backend)
    update = Update(services=(*whole.services, *many), workloads=whole.workloads, complete=True)
    path.apply(ServiceTables(existing=path.contents()).apply(update))
    assert len(path.contents().frontends) == 5001
    path.close()
    path = DataPath.open(objects, pins=pins)
    new = Update(services=(service("b", "10.96.0.9"),), workloads=whole.workloads, complete=True)
    path.apply(ServiceTables(existing=path.contents()).apply(new))
    contents = path.contents()
    assert (len(contents.frontends), len(contents.clusters), len(contents.slots)) == (1, 1, 0)
    path.destroy()
