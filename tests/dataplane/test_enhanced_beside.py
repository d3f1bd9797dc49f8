# SPDX-License-Identifier: Apache-2.0
"""A gate beside one that has the maps of another layout: whoever is killed meanwhile, people are served."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from runtime.kernel.datapath import DataPath
from runtime.kernel.gate import Gate, GateError
from runtime.kernel.http_ports import HttpPorts
from runtime.kernel.netns import netns_cookie
from runtime.launch.gate import ensure_gate, other_maps_run, running, start_beside, succeed
from runtime.launch.http import Http
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root


class Upgrade:
    """A stage whose tables, programs and gate are another version's from now on; and what the next daemons do."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.endpoints = stage.serve("a", "b")
        stage.route()
        self.old = running(stage.place)
        self.tables = stage.path.tables
        self.other = self.tables.parent / "0123456789abcdef"
        stage.path.close()
        self.tables.rename(self.other)
        stage.place.socket.with_suffix(".maps").write_text(str(self.other))
        self.path = self.open()

    def open(self) -> DataPath:
        return DataPath.open(self.stage.objects, pins=self.stage.pins, path="enhanced")

    def die(self) -> None:
        """The daemon is killed, and there is another."""
        self.path.close()
        self.path = self.open()

    def fill(self) -> None:
        self.stage.ports = HttpPorts(self.path.maps)
        for name, port in self.endpoints.items():
            self.stage.point(name, port)
        self.stage.route()

    def stand_beside(self) -> int:
        assert other_maps_run(self.path, self.stage.place) == self.old
        pid = start_beside(self.path, self.stage.place)
        netns = self.stage.world.netns
        with Gate(self.stage.place.beside) as gate:
            gate.add_space(self.cookie_of(netns), netns)
        return pid

    def cookie_of(self, netns: Path) -> int:
        return netns_cookie(netns, objects=self.stage.objects)

    def launch(self) -> Http:
        """As the daemon has its gate run; nothing is turned over yet."""
        http = Http(
            self.path,
            place=self.stage.place,
            cookie_of=self.cookie_of,
            namespaces=lambda: [self.stage.world.netns],
        )
        http.start()
        assert running(self.stage.place) == self.old
        return http

    def check_served(self, *, by_new: bool) -> None:
        """On a new connection."""
        number = self.stage.client("connect", VIP4, PORT)
        for target in ("/a/x", "/b/y"):
            assert self.stage.client("ask", number, target)[:2] == [200, target[1]]
        socket = self.stage.place.socket
        beside = self.stage.place.beside
        with Gate(beside if by_new and beside.exists() else socket) as gate:
            assert gate.status()["sessions"] >= 1
        self.stage.client("close", number)


@contextmanager
def unwritable(*files: Path) -> Iterator[None]:
    """Nothing can be written to a directory, as on a full file system."""
    for file in files:
        file.unlink(missing_ok=True)
        file.mkdir()
    try:
        yield
    finally:
        for file in files:
            with suppress(FileNotFoundError):
                file.rmdir()


@pytest.fixture
def upgrade(all_objects: Path, gate_program: Path) -> Iterator[Upgrade]:
    with Stage(all_objects, gate_program) as stage:
        made = Upgrade(stage)
        try:
            yield made
        finally:
            made.path.close()


def test_killed_before_programs_turn_over_the_former_ones_serve_on(upgrade: Upgrade) -> None:
    left = upgrade.stand_beside()
    upgrade.check_served(by_new=False)
    upgrade.die()
    assert upgrade.path.must_turn_over, "its tables may not be full"
    upgrade.check_served(by_new=False)
    upgrade.fill()
    new = upgrade.stand_beside()
    assert new != left
    upgrade.path.turn_over()
    upgrade.check_served(by_new=True)
    succeed(upgrade.stage.place)
    upgrade.check_served(by_new=True)
    assert running(upgrade.stage.place) == new
    assert not upgrade.other.exists()
    procs = upgrade.stage.place.cgroup / "cgroup.procs"
    wait_for(lambda: procs.read_text().split() == [str(new)], "no other gate is left")


def test_killed_before_the_gate_succeeds_the_next_daemon_sees_to_it(upgrade: Upgrade) -> None:
    upgrade.fill()
    new = upgrade.stand_beside()
    upgrade.path.turn_over()
    upgrade.die()
    assert not upgrade.path.must_turn_over
    assert ensure_gate(upgrade.path, upgrade.stage.place) == new
    upgrade.check_served(by_new=True)
    assert running(upgrade.stage.place) == new


def test_the_version_of_before_ends_what_was_started_beside_its_own(upgrade: Upgrade) -> None:
    upgrade.stand_beside()
    upgrade.path.close()
    away = upgrade.tables.with_name("fedcba9876543210")
    upgrade.tables.rename(away)  # its tables under their own name, and ours under another's
    upgrade.other.rename(upgrade.tables)
    place = upgrade.stage.place
    place.socket.with_suffix(".maps").write_text(str(upgrade.tables))
    (place.beside.with_suffix(".maps")).write_text(str(away))
    upgrade.path = upgrade.open()
    assert ensure_gate(upgrade.path, place) == upgrade.old
    with pytest.raises(GateError):
        Gate(place.beside)
    upgrade.path.turn_over()
    upgrade.check_served(by_new=False)
    assert not away.exists()


def test_where_the_gate_beside_dies_another_one_serves(upgrade: Upgrade) -> None:
    """Programs have turned over: nobody would be there for those that they send."""
    http = upgrade.launch()
    stand_beside = upgrade.path.before_turn_over
    died: list[int] = []

    def die() -> None:
        stand_beside()
        with Gate(upgrade.stage.place.beside) as gate:
            died.append(gate.status()["pid"])
        os.kill(died[0], signal.SIGKILL)
        os.waitpid(died[0], 0)

    upgrade.path.before_turn_over = die
    upgrade.fill()
    upgrade.path.turn_over()
    assert running(upgrade.stage.place) not in (None, upgrade.old, died[0])
    upgrade.check_served(by_new=True)
    assert http.fault() is None


async def test_where_no_other_starts_it_is_tried_again(upgrade: Upgrade) -> None:
    http = upgrade.launch()
    place, stand_beside = upgrade.stage.place, upgrade.path.before_turn_over

    with ExitStack() as stack:

        def end() -> None:
            stand_beside()
            with Gate(place.beside) as gate:
                gate.stop()
            stack.enter_context(unwritable(place.log))

        upgrade.path.before_turn_over = end
        upgrade.fill()
        upgrade.path.turn_over()
        assert "the gate did not start" in (http.fault() or "")
        assert running(place) == upgrade.old
    keeper = asyncio.create_task(http.keep())
    try:
        await asyncio.to_thread(wait_for, lambda: http.fault() is None, "it is not tried again")
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
    assert running(place) not in (None, upgrade.old)
    upgrade.check_served(by_new=True)


def test_a_gate_whose_maps_cannot_be_noted_serves(upgrade: Upgrade) -> None:
    http = upgrade.launch()
    place = upgrade.stage.place
    with unwritable(*(socket.with_suffix(".maps") for socket in (place.socket, place.beside))):
        upgrade.fill()
        upgrade.path.turn_over()
        upgrade.check_served(by_new=True)
        assert http.fault() is None
