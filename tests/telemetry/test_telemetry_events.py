# SPDX-License-Identifier: Apache-2.0
"""Events of real connections: whole, exact, and counted where they were lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from runtime.bpf.info import ids
from runtime.kernel.cleanup import cleanup
from runtime.kernel.datapath import DataPath
from runtime.kernel.netns import netns_cookie
from runtime.kernel.telemetry import Observer, remove
from runtime.tables.telemetry_layout import TcpEvent, TcpFlow
from runtime.telemetry.directory import INBOUND, OUTBOUND, packed, unpacked
from runtime.telemetry.event import CLOSED, FAILED, OPENED, Fields
from runtime.telemetry.reader import Reader
from tests.dataplane.fixtures import Publish
from tests.dataplane.world import VIP4, VIP6, Agent, World, serving, wait_for

pytestmark = pytest.mark.root
PODS = {4: "10.244.0.1", 6: "fd00:244::1"}
VIPS = {4: VIP4, 6: VIP6}


class Events:
    """Reads an observer's events, so many at a time."""

    def __init__(self, observer: Observer) -> None:
        self._found: list[TcpEvent] = []
        self._reader = Reader(observer.events, self._take)

    def _take(self, events: Sequence[Fields]) -> None:
        self._found += [TcpEvent(*each) for each in events]

    def consume(self, limit: int) -> list[TcpEvent]:
        self._found = []
        self._reader.read(limit)
        return self._found

    def close(self) -> None:
        self._reader.close()


@pytest.fixture
def observer(objects: Path, pins: Path, datapath: DataPath) -> Iterator[Observer]:
    opened = Observer.open(objects, pins=pins)
    yield opened
    opened.destroy()


@pytest.fixture
def events(observer: Observer) -> Iterator[Callable[[int], list[TcpEvent]]]:
    """Waits for so many events more."""
    ring = Events(observer)

    def wait(count: int) -> list[TcpEvent]:
        found: list[TcpEvent] = []

        def enough() -> bool:
            found.extend(ring.consume(1000))
            return len(found) >= count

        wait_for(enough, f"{count} events")
        assert len(found) == count, found
        return found

    yield wait
    ring.close()


@pytest.fixture
def managed(world: World, datapath: DataPath, observer: Observer) -> Agent:
    cgroup = world.cgroup()
    datapath.enroll_cgroup(cgroup)
    observer.enroll_cgroup(cgroup)
    return world.agent(cgroup)


def _with_pods(world: World) -> None:
    for address in PODS.values():
        world.add_address(address)


@pytest.mark.parametrize("family", [4, 6])
def test_both_ends_tell_the_same_to_the_byte(
    world: World,
    managed: Agent,
    publish: Publish,
    events: Callable[[int], list[TcpEvent]],
    family: int,
) -> None:
    _with_pods(world)
    port = managed("end_of", family, PODS[family], 300_000, "close")
    publish(serving("one", PODS[family], {("a", 80): port}), addresses=(VIPS[family],))
    before = time.monotonic_ns()
    assert managed("end", family, VIPS[family], 80, 300_000, "close") == 300_000
    after = time.monotonic_ns()
    found = events(4)
    ends = {
        (TcpFlow.unpack(each.flow).direction, each.kind): (each, TcpFlow.unpack(each.flow))
        for each in found
    }
    assert set(ends) == {(d, k) for d in (OUTBOUND, INBOUND) for k in (OPENED, CLOSED)}
    for (direction, kind), (event, flow) in ends.items():
        assert unpacked(flow.destination) == ip_address(PODS[family])
        assert int.from_bytes(flow.destination_port, "big") == port
        assert unpacked(flow.source) == ip_address(PODS[family])
        assert before <= event.started_ns <= event.now_ns <= after or kind == CLOSED
        amount = 300_000 if kind == CLOSED else 0
        assert (event.sent, event.received) == (amount, amount), (direction, kind)
        wanted = packed(ip_address(VIPS[family])) if direction == OUTBOUND else bytes(16)
        assert flow.service == wanted
        assert int.from_bytes(flow.service_port, "big") == (80 if direction == OUTBOUND else 0)
    assert len({event.source_port for event, _ in ends.values()}) == 1
    closed = ends[OUTBOUND, CLOSED][0]
    assert 0 < closed.min_rtt_us <= 10_000_000
    assert closed.smoothed_rtt_us > 0
    assert closed.now_ns > closed.started_ns


@pytest.mark.parametrize("ending", ["close", "half", "server", "reset", "unread"])
def test_bytes_are_exact_however_a_connection_ends(
    world: World,
    managed: Agent,
    events: Callable[[int], list[TcpEvent]],
    ending: str,
) -> None:
    for size in (1, 70_000):
        port = managed("end_of", 4, "127.0.0.1", size, ending)
        got = managed("end", 4, "127.0.0.1", port, size, ending)
        assert got == size
        closed = [each for each in events(4) if each.kind == CLOSED]
        assert [(e.sent, e.received) for e in closed] == [(size, size)] * 2, (ending, size)


def test_a_connection_that_comes_to_nothing_has_failed(
    managed: Agent, events: Callable[[int], list[TcpEvent]]
) -> None:
    assert "errno" in managed("ask", 4, "127.0.0.1", 1)
    (event,) = events(1)
    assert event.kind == FAILED
    assert (event.sent, event.received) == (0, 0)


def test_who_is_not_managed_is_not_followed(
    world: World, managed: Agent, events: Callable[[int], list[TcpEvent]]
) -> None:
    stranger = world.agent()
    port = stranger("serve", 4, "127.0.0.1", 0, "x")
    assert stranger("ask", 4, "127.0.0.1", port)["answer"] == "x"
    assert managed("ask", 4, "127.0.0.1", port)["answer"] == "x"
    found = events(2)
    assert {TcpFlow.unpack(each.flow).direction for each in found} == {OUTBOUND}


def test_cgroups_above_each_other_tell_once(
    world: World,
    observer: Observer,
    datapath: DataPath,
    events: Callable[[int], list[TcpEvent]],
) -> None:
    outer = world.cgroup()
    inner = world.cgroup(outer)
    for cgroup in (outer, inner):
        observer.enroll_cgroup(cgroup)
    port = world.agent()("serve", 4, "127.0.0.1", 0, "x")
    assert world.agent(inner)("ask", 4, "127.0.0.1", port)["answer"] == "x"
    assert [each.kind for each in events(2)] == [OPENED, CLOSED]


def test_namespaces_are_followed_by_their_cookie(
    world: World,
    observer: Observer,
    datapath: DataPath,
    events: Callable[[int], list[TcpEvent]],
) -> None:
    datapath.enroll_netns(netns_cookie(world.netns))
    assert observer.follow_namespaces(follow=True)
    agent = world.agent()
    port = agent("serve", 4, "127.0.0.1", 0, "x")
    assert agent("ask", 4, "127.0.0.1", port)["answer"] == "x"
    with World() as other:
        stranger = other.agent()
        assert stranger("ask", 4, "127.0.0.1", stranger("serve", 4, "127.0.0.1", 0, "y"))
    assert len(events(4)) == 4
    observer.follow_namespaces(follow=False)
    assert agent("ask", 4, "127.0.0.1", port)["answer"] == "x"
    assert events(0) == []


def test_what_there_is_no_room_for_is_counted_and_blocks_nobody(
    world: World, objects: Path, pins: Path, datapath: DataPath
) -> None:
    small = Observer.open(objects, pins=pins, ring_bytes=4096)
    cgroup = world.cgroup()
    small.enroll_cgroup(cgroup)
    agent = world.agent(cgroup)
    port = agent("serve", 4, "127.0.0.1", 0, "x")
    assert agent("tally", 4, "127.0.0.1", port, 50) == {"x": 50}
    ring = Events(small)
    wait_for(lambda: small.lost() + 4096 // 120 >= 200, "the last connection's end")
    told = ring.consume(1000)
    assert len(told) == 4096 // 120
    assert small.lost() == 200 - len(told)
    assert agent("tally", 4, "127.0.0.1", port, 1) == {"x": 1}
    ring.close()
    small.destroy()


def test_samples_are_whole_where_the_ring_begins_anew(
    world: World, objects: Path, pins: Path, datapath: DataPath
) -> None:
    """A sample takes 120 bytes, of which 4096 is no multiple: some go over the end."""
    small = Observer.open(objects, pins=pins, ring_bytes=4096)
    cgroup = world.cgroup()
    small.enroll_cgroup(cgroup)
    server, agent = world.agent(), world.agent(cgroup)
    ring = Events(small)
    for size in range(1, 41):
        port = server("end_of", 4, "127.0.0.1", size, "server")
        assert agent("end", 4, "127.0.0.1", port, size, "server") == size
        opened, closed = ring.consume(1000)
        assert (opened.kind, closed.kind) == (OPENED, CLOSED)
        assert (closed.sent, closed.received) == (size, size)
        assert opened.source_port == closed.source_port
        assert opened.flow == closed.flow
        assert int.from_bytes(TcpFlow.unpack(closed.flow).destination_port, "big") == port
    assert small.lost() == 0
    ring.close()
    small.destroy()


def test_a_slice_is_bounded_and_in_order(managed: Agent, observer: Observer) -> None:
    port = managed("serve", 4, "127.0.0.1", 0, "x")
    assert managed("tally", 4, "127.0.0.1", port, 20) == {"x": 20}
    ring = Events(observer)
    slices = [len(ring.consume(7)) for _ in range(3)]
    assert slices == [7, 7, 7]
    times = [each.now_ns for each in ring.consume(1000)]
    assert times == sorted(times)
    ring.close()


async def test_the_loop_runs_while_the_ring_is_never_empty(
    managed: Agent, observer: Observer
) -> None:
    """The reader yields between slices however much there is to read."""
    port = managed("serve", 4, "127.0.0.1", 0, "x")
    assert managed("tally", 4, "127.0.0.1", port, 600) == {"x": 600}
    sizes: list[int] = []
    turns = 0
    reader = Reader(observer.events, lambda events: sizes.append(len(events)))
    work = asyncio.create_task(reader.run())
    while sum(sizes) < 2400:
        await asyncio.sleep(0)
        turns += len(sizes) > 0 and sum(sizes) < 2400
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    reader.close()
    assert max(sizes) == 512
    assert turns >= len([each for each in sizes if each == 512]) - 1


def test_the_next_daemon_reads_what_happened_meanwhile(
    world: World, objects: Path, pins: Path, datapath: DataPath
) -> None:
    first = Observer.open(objects, pins=pins)
    cgroup = world.cgroup()
    first.enroll_cgroup(cgroup)
    agent = world.agent(cgroup)
    port = agent("serve", 4, "127.0.0.1", 0, "x")
    held = agent("hold", 4, "127.0.0.1", port)
    first.close()
    assert agent("ask", 4, "127.0.0.1", port)["answer"] == "x"
    second = Observer.open(objects, pins=pins)
    assert second.cgroups == [cgroup]
    agent("let_go", held)
    ring = Events(second)
    found: list[int] = []

    def both() -> bool:
        found.extend(each.kind for each in ring.consume(1000))
        return len(found) >= 8

    wait_for(both, "the events of two connections' ends")
    assert sorted(found) == [OPENED] * 4 + [CLOSED] * 4
    ring.close()
    second.destroy()


def test_nothing_is_left(world: World, objects: Path, pins: Path) -> None:
    before = {kind: ids(kind) for kind in ("prog", "map", "link")}
    datapath = DataPath.open(objects, pins=pins)
    opened = Observer.open(objects, pins=pins)
    cgroup = world.cgroup()
    datapath.enroll_cgroup(cgroup)
    opened.match([cgroup])
    ring = Events(opened)
    ring.close()
    opened.close()
    assert remove(pins)
    assert not remove(pins)
    assert not (pins / "telemetry").exists()
    Observer.open(objects, pins=pins).close()
    datapath.close()
    assert any("telemetry" in each for each in cleanup(pins))

    def clean() -> bool:
        return all(not ids(kind) - before[kind] for kind in before)

    with suppress(AssertionError):  # other tests may load programs meanwhile
        wait_for(clean, "programs, maps and links gone", seconds=5)
    assert not [path for path in pins.rglob("*") if path.is_file()]
