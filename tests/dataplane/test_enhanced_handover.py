# SPDX-License-Identifier: Apache-2.0
"""One gate hands over to the next, or dies, or the daemon does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from runtime.kernel.datapath import DataPath
from runtime.kernel.gate import Gate
from runtime.launch.gate import ensure_gate, running
from runtime.tables.enhanced_layout import Slot
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_ledger import take
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.governed_sides import BACKEND, Backend
from tests.dataplane.test_enhanced_streams import BIG, good
from tests.dataplane.world import VIP4, end_agent, wait_for

pytestmark = pytest.mark.root
SLOTS = 65536  # KMESH_SLOTS
CROWD = 600  # clients whose letters are more than a socket's queue takes
LETTER_SESSION, LETTER_END = 3, 5  # handover.c


def is_gone(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not Path(f"/proc/{pid}").exists()


def another_version(stage: Stage, tmp_path: Path) -> None:
    """The same program under another name: another file, as after an upgrade."""
    stage.place = stage.place.__class__(
        program=Path(shutil.copy(stage.program, tmp_path / "next")),
        socket=stage.place.socket,
        log=stage.place.log,
        cgroup=stage.place.cgroup,
    )


def test_a_gate_that_runs_is_adopted(routed: Stage) -> None:
    pid = running(routed.place)
    assert ensure_gate(routed.path, routed.place) == pid


def test_connections_live_on_through_an_upgrade(routed: Stage, tmp_path: Path) -> None:
    idle = [routed.client("connect", VIP4, PORT) for _ in range(20)]
    for number in idle:
        assert routed.client("ask", number, "/a/x")[0] == 200
    port, old = routed.gate_port, running(routed.place)
    assert old
    busy = routed.client("connect", VIP4, PORT)
    routed.client("send", busy, "GET /a/slow/1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
    part = routed.client("connect", VIP4, PORT)
    routed.client("send", part, "POST /b/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    another_version(routed, tmp_path)
    new = routed.start_gate()
    assert new != old
    assert routed.gate_port == port  # the listener is the very same
    assert routed.client("read", busy) == good("a", "/a/slow/1.5", 0)
    routed.client("send", part, "\x00\x01\x02\x03")
    assert routed.client("read", part) == good("b", "/b/echo", 4)
    wait_for(lambda: is_gone(old), "the old gate ends when its last connection has gone over")
    before = routed.taken()
    for number in [*idle, busy, part]:
        for target in ("/a/size/5", "/b/size/6"):
            assert routed.client("ask", number, target) == good(target[1], target, int(target[-1]))
    assert routed.taken() > before  # the kernel takes requests again
    assert routed.status()["sessions"] == len(idle) + 2


def test_requests_that_go_on_during_an_upgrade(routed: Stage, tmp_path: Path) -> None:
    other = routed.agent(routed.cgroup)
    assert other.process.stdin
    other.process.stdin.write(
        json.dumps({"do": "storm", "with": [VIP4, PORT, 1, 8, 150, 20000]}) + "\n"
    )
    other.process.stdin.flush()
    before, old = routed.taken(), running(routed.place)
    assert old
    wait_for(lambda: routed.taken() > before + 20, "the storm has begun")
    another_version(routed, tmp_path)
    routed.start_gate()
    assert other.process.stdout
    assert other.process.stdout.readline() == '{"result": []}\n'
    wait_for(lambda: is_gone(old), "the old gate ends")
    wait_for(lambda: routed.status()["sessions"] == 0, "no session is left")


def test_the_kernel_takes_nothing_of_a_connection_that_has_not_gone_over(
    routed: Stage, tmp_path: Path
) -> None:
    """Its request would be sent on a connection of the next gate's, which knows no such client."""
    agent = routed.world.agent(script=BACKEND)
    routed.agents.append(agent)
    server = Backend(agent, "held")
    routed.ports.set_cluster("held", [Target("127.0.0.1", server.start("h"))])
    routed.route(table(to("/h", "held")))
    number = routed.client("connect", VIP4, PORT)
    assert routed.client("ask", number, "/h/x")[:2] == [200, "held h"]
    before, old = routed.taken(), running(routed.place)
    assert old
    target = f"/h/hold/{server.key('one')}"
    routed.client("send", number, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert routed.taken() == before + 1
    assert _open(routed) == [1]
    another_version(routed, tmp_path)
    routed.start_gate()
    wait_for(lambda: _open(routed) == [0], "the kernel may not take")
    assert not is_gone(old)
    server.release("one")
    assert routed.client("read", number)[0] == 200
    wait_for(lambda: is_gone(old), "the old gate ends")
    assert _open(routed) == [1]
    for _ in range(3):  # the first dials
        assert routed.client("ask", number, "/h/x")[0] == 200
    assert routed.taken() > before + 1


def _open(stage: Stage) -> list[int]:
    """Of each connection whether the kernel may take requests of it."""
    values = (Slot.unpack(value) for _, value in stage.path.maps["gate_slots"].items())
    return [slot.open for slot in values if slot.cookie]


def test_a_large_response_goes_on_during_an_upgrade(routed: Stage, tmp_path: Path) -> None:
    number = routed.client("connect", VIP4, PORT)
    routed.client("send", number, f"GET /a/size/{BIG} HTTP/1.1\r\nHost: x\r\n\r\n")
    old = running(routed.place)
    another_version(routed, tmp_path)
    routed.start_gate()
    assert routed.client("read", number) == good("a", f"/a/size/{BIG}", BIG)
    assert old
    wait_for(lambda: is_gone(old), "the old gate ends")
    assert routed.client("ask", number, "/b/size/3") == good("b", "/b/size/3", 3)


@pytest.mark.parametrize("size", [1, 24, 7000])
def test_a_head_that_is_half_sent_goes_over(routed: Stage, tmp_path: Path, size: int) -> None:
    """There is no end to how long a client may take for it."""
    head = f"GET /a/x HTTP/1.1\r\nHost: x\r\nX: {'y' * 7900}\r\n\r\n"
    number, old = routed.client("connect", VIP4, PORT), running(routed.place)
    assert old
    assert routed.client("ask", number, "/b/x")[0] == 200
    routed.client("send", number, head[:size])
    another_version(routed, tmp_path)
    routed.start_gate()
    wait_for(lambda: is_gone(old), "the old gate ends")
    routed.client("send", number, head[size:])
    assert routed.client("read", number) == good("a", "/a/x", 0)
    before = routed.taken()
    for _ in range(3):
        assert routed.client("ask", number, "/b/x")[0] == 200
    assert routed.taken() > before


def test_a_connection_that_was_just_recalled_leaves_nothing_behind(
    stage: Stage, tmp_path: Path
) -> None:
    """Neither gate may forget the number of one that ends in the middle of an upgrade."""
    endpoint = stage.agent()
    stage.point("a", endpoint("serve", "127.0.0.1", "a"))
    stage.route(table(to("/", "a")))
    number, old = stage.client("connect", VIP4, PORT), running(stage.place)
    assert old
    for _ in range(3):
        assert stage.client("ask", number, "/x")[0] == 200
    end_agent(
        stage.agents.pop()
    )  # the gate recalls the client's connection, and waits until that is known
    another_version(stage, tmp_path)
    stage.start_gate()
    wait_for(lambda: is_gone(old), "the old gate ends")
    stage.renew()
    assert take(stage).upstreams == 0


def test_after_a_gate_was_killed_the_next_one_starts_clean(routed: Stage) -> None:
    number = routed.client("connect", VIP4, PORT)
    for target in ("/a", "/b", "/a", "/b"):
        assert routed.client("ask", number, target)[0] == 200
    old = running(routed.place)
    assert old
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: is_gone(old), "it is dead")
    assert routed.client("at_end", number)  # its connections go with it
    routed.start_gate()
    before = routed.taken()
    assert routed.ask(["/a", "/b"] * 10) == ["a", "b"] * 10
    assert routed.taken() > before


def test_a_gate_that_drains_is_ended_when_the_one_after_it_has_died(
    routed: Stage, tmp_path: Path
) -> None:
    """It would give slots back that are others' by then."""
    number, old = _half_sent(routed), running(routed.place)
    another_version(routed, tmp_path)
    second = routed.start_gate()
    assert old
    assert not is_gone(old)
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: is_gone(second), "the second is dead")
    _start_anew(routed, old, number)


def test_a_gate_that_hands_over_to_nobody_is_ended(routed: Stage) -> None:
    """Its successor has died before it had all, and no other can ask for the rest."""
    number, old = _half_sent(routed), running(routed.place)
    assert old
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as successor:
        successor.connect(os.fspath(routed.place.socket))
        successor.send(b"hand-over 0")
        assert successor.recv(1)
    assert not is_gone(old)
    _start_anew(routed, old, number)


def test_clients_are_served_while_the_next_gate_takes_none(stage: Stage) -> None:
    """It may be busy with those that it has: no response waits for that."""
    stage.serve("a")
    stage.route(table(to("/", "a")))
    old = running(stage.place)
    assert old
    for _ in range(CROWD):
        stage.client("connect", VIP4, PORT)
    wait_for(lambda: stage.status()["sessions"] == CROWD, "the gate has them")
    busy = stage.client("connect", VIP4, PORT)
    stage.client("send", busy, "GET /a/slow/1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as successor:
        successor.connect(os.fspath(stage.place.socket))
        successor.send(f"hand-over {_map_id(stage)} heads".encode())
        while _letter(successor) != LETTER_END:
            pass
        assert stage.client("read", busy) == good("a", "/a/slow/1.5", 0)
        gone = [_letter(successor) for _ in range(CROWD + 1)]
        assert gone == [LETTER_SESSION] * (CROWD + 1)
        wait_for(lambda: is_gone(old), "the old gate ends")
        assert _letter(successor) is None
    stage.start_gate()  # all clients have lost their connections: nobody had taken them over
    stage.renew()


def _letter(successor: socket.socket) -> int | None:
    """The kind of the next one, whose descriptors nobody keeps; none after the last."""
    letter, descriptors, _, _ = socket.recv_fds(successor, 16384, 3)
    for descriptor in descriptors:
        os.close(descriptor)
    return int.from_bytes(letter[:4], sys.byteorder) if letter else None


def _map_id(stage: Stage) -> int:
    """Of the map that two gates must have both to hand over clients."""
    text = Path(f"/proc/self/fdinfo/{stage.path.maps['gate_slots'].fd}").read_text()
    return int(text.partition("map_id:")[2].split()[0])


def _half_sent(stage: Stage) -> int:
    """A request that keeps its gate, as it never ends."""
    number = int(stage.client("connect", VIP4, PORT))
    stage.client("send", number, "POST /b/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    wait_for(lambda: stage.status()["busy"] == 1, "it is under way")
    return number


def _start_anew(stage: Stage, old: int, number: int) -> None:
    stage.start_gate()
    assert is_gone(old)
    assert stage.client("at_end", number)
    assert (
        f"process {old} has these maps and does not hand over: it is ended"
        in stage.place.log.read_text()
    )
    before = stage.taken()
    assert stage.ask(["/a", "/b"] * 10) == ["a", "b"] * 10
    assert stage.taken() > before
    stage.renew()
    wait_for(lambda: take(stage).free == SLOTS, "each slot is free, once")


def test_the_gate_outlives_the_daemon(routed: Stage) -> None:
    number = routed.client("connect", VIP4, PORT)
    assert routed.client("ask", number, "/a/x")[0] == 200
    pid = running(routed.place)
    routed.path.close()
    for target in ("/a/x", "/b/x") * 5:
        assert routed.client("ask", number, target)[0] == 200
    routed.path = DataPath.open(routed.objects, pins=routed.pins, path="enhanced")
    routed.stack.callback(routed.path.destroy)
    assert ensure_gate(routed.path, routed.place) == pid
    before = routed.taken()
    for target in ("/a/x", "/b/x") * 100:
        assert routed.client("ask", number, target)[0] == 200
        if routed.taken() >= before + 8:
            break
    assert routed.taken() >= before + 8
    with Gate(routed.place.socket) as gate:
        assert gate.status()["spaces"] == 1
