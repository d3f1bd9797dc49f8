# SPDX-License-Identifier: Apache-2.0
"""Who is short-cut and who is not, whose peer is whose, and what the daemon's end changes: nothing."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.kernel.accelerate import Accelerator, Counters, remove
from tests.dataplane.accelerate_stage import (
    Stage,
    accepted,
    connected,
    enter_new_netns,
    exactly,
    fork,
    listening,
    pair,
    result,
    stage,
)
from tests.dataplane.fixtures import cgroup, pins

__all__ = ["cgroup", "pins", "stage"]
pytestmark = pytest.mark.root


def _talk(client: socket.socket, server: socket.socket, *, rounds: int = 3) -> bool:
    fine = True
    for index in range(rounds):
        message = b"message %d" % index * 10
        for sender, reader in ((client, server), (server, client)):
            sender.sendall(message)
            fine = fine and exactly(reader, len(message)) == message
    return fine


def _done(stage: Stage, before: Counters) -> tuple[int, int]:
    after = stage.accelerator.counters()
    return after.paired - before.paired, after.shortened - before.shortened


@pytest.mark.parametrize("managed_end", ["client", "server"])
def test_a_connection_with_an_unmanaged_end_stays_with_tcp(stage: Stage, managed_end: str) -> None:
    def scenario() -> bool:
        # A socket belongs to the cgroup in which it is made.
        if managed_end == "client":
            listener = listening()
            stage.enter()
            client = connected("127.0.0.1", listener.getsockname()[1])
            return _talk(client, accepted(listener))
        client = socket.socket()
        client.settimeout(10)
        stage.enter()
        listener = listening()
        client.connect(listener.getsockname())
        return _talk(client, accepted(listener))

    before = stage.accelerator.counters()
    assert stage.run(scenario, managed=False)
    assert _done(stage, before) == (0, 0)
    assert _sockets(stage) == 0


def _sockets(stage: Stage) -> int:
    return sum(1 for _ in stage.accelerator._map("sockets").keys())  # noqa: SIM118


@pytest.mark.parametrize("blocking_end", ["client", "listener", "client and listener"])
def test_a_connection_with_an_end_that_blocks_stays_with_tcp(
    stage: Stage, blocking_end: str
) -> None:
    def scenario() -> bool:
        listener = listening(blocking="listener" in blocking_end)
        port = listener.getsockname()[1]
        client = connected("127.0.0.1", port, blocking="client" in blocking_end)
        return _talk(client, accepted(listener))

    before = stage.accelerator.counters()
    assert stage.run(scenario)
    assert _done(stage, before) == (0, 0)
    after = stage.accelerator.counters()
    told = after.client_blocks - before.client_blocks, after.server_blocks - before.server_blocks
    assert told == ((1, 0) if blocking_end == "client" else (0, 1))  # each connection once


def test_who_does_not_block_is_not_counted_as_left_alone(stage: Stage) -> None:
    before = stage.accelerator.counters()
    assert stage.run(lambda: _talk(*pair()))
    after = stage.accelerator.counters()
    assert after.paired == before.paired + 1
    assert (after.client_blocks, after.server_blocks) == (
        before.client_blocks,
        before.server_blocks,
    )


def test_nothing_is_short_cut_to_an_accepted_socket_that_blocks(stage: Stage) -> None:
    def scenario() -> bool:
        client, server = pair()
        server.settimeout(None)
        client.sendall(b"a bit" * 20)
        return exactly(server, 100) == b"a bit" * 20

    before = stage.accelerator.counters()
    assert stage.run(scenario)
    assert _done(stage, before) == (1, 0)


def test_the_same_addresses_and_ports_in_two_network_namespaces(stage: Stage) -> None:
    def scenario() -> list[bool]:
        pairs = []
        for _ in range(4):
            enter_new_netns()
            with listening(port=18080) as listener:
                client = connected("127.0.0.1", 18080, source=40000)
                pairs.append((client, accepted(listener)))
        names = {(c.getsockname(), c.getpeername()) for c, _ in pairs}
        assert len(names) == 1
        seen = []
        for _ in range(3):
            for index, (client, server) in enumerate(pairs):
                client.sendall(b"to server %d" % index)
                server.sendall(b"to client %d" % index)
            for index, (client, server) in enumerate(pairs):
                seen.append(exactly(server, 11) == b"to server %d" % index)
                seen.append(exactly(client, 11) == b"to client %d" % index)
        return seen

    before = stage.accelerator.counters()
    assert stage.run(scenario) == [True] * 24
    paired, shortened = _done(stage, before)
    assert paired == 4
    assert shortened >= 8


def test_an_address_and_port_used_again(stage: Stage) -> None:
    def scenario() -> int:
        fine = 0
        with listening(port=18081) as listener:
            for _ in range(300):
                client = connected("127.0.0.1", 18081, source=40001)
                server = accepted(listener)
                fine += _talk(client, server)
                # Reset, so that the port is free at once.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
                server.close()
        return fine

    before = stage.accelerator.counters()
    assert stage.run(scenario) == 300
    assert _done(stage, before)[0] == 300


def _serve_echo(listener: socket.socket) -> None:
    while True:
        server = accepted(listener)
        threading.Thread(target=_echo, args=(server,), daemon=True).start()


def _echo(server: socket.socket) -> None:
    with server:
        while data := server.recv(8192):
            server.sendall(data)


def _many(connections: int, workers: int) -> int:
    listener = listening()
    threading.Thread(target=_serve_echo, args=(listener,), daemon=True).start()
    port = listener.getsockname()[1]
    good: list[int] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(connections // workers):
            with connected("127.0.0.1", port) as client:
                for _ in range(dice.randrange(1, 5)):
                    message = dice.randbytes(dice.choice([2, 60, 900, 9000]))
                    client.sendall(message)
                    assert exactly(client, len(message)) == message
                good.append(1)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(good)


def test_thousands_of_connections_that_come_and_go(stage: Stage) -> None:
    before = stage.accelerator.counters()
    assert stage.run(_many, 4000, 16) == 4000
    paired, shortened = _done(stage, before)
    assert paired == 4000
    assert shortened > 4000
    assert _sockets(stage) == 0


def _stream_until(stop: int, *, events: int) -> tuple[bool, int, bool]:
    """Stream with changes of way until told to stop; then whether a new connection works too."""
    client, server = pair()
    sent, got = hashlib.sha256(), hashlib.sha256()
    rounds = 0
    os.set_blocking(stop, False)
    os.write(events, b"started")
    while True:
        data = os.urandom(random.choice([50, 3000, 200_000]))
        thread = threading.Thread(target=client.sendall, args=(data,))
        thread.start()
        sent.update(data)
        got.update(exactly(server, len(data)))
        thread.join()
        rounds += 1
        try:
            if os.read(stop, 1) and rounds > 50:
                break
        except BlockingIOError:
            continue
    return sent.digest() == got.digest(), rounds, _talk(*pair())


def _while_streaming(stage: Stage, meanwhile: Callable[[], None]) -> tuple[bool, int, bool]:
    stop_reader, stop = os.pipe()
    events_reader, events = os.pipe()
    child = stage.start(lambda: _stream_until(stop_reader, events=events))
    os.read(events_reader, 7)
    meanwhile()
    os.write(stop, b"stop" * 10_000)
    done: tuple[bool, int, bool] = result(*child)
    for descriptor in (stop_reader, stop, events_reader, events):
        os.close(descriptor)
    return done


def test_a_daemon_that_is_killed_loses_nothing(stage: Stage) -> None:
    def daemon() -> None:
        Accelerator.open(stage.objects, pins=stage.pins)
        os.kill(os.getpid(), signal.SIGKILL)

    def meanwhile() -> None:
        stage.accelerator.close()
        for _ in range(5):
            pid, pipe = fork(daemon)
            os.close(pipe)
            assert os.waitpid(pid, 0)[1] == signal.SIGKILL

    whole, _, anew = _while_streaming(stage, meanwhile)
    assert whole
    assert anew
    adopted = Accelerator.open(stage.objects, pins=stage.pins)
    counters = adopted.counters()
    adopted.close()
    assert counters.paired == 2  # both met while no daemon ran, or before it was killed
    assert adopted.cgroups == [stage.cgroup]


def test_taken_away_from_under_a_stream(stage: Stage) -> None:
    def meanwhile() -> None:
        stage.accelerator.destroy()
        assert not (stage.pins / "accelerate").exists()

    whole, _, anew = _while_streaming(stage, meanwhile)
    assert whole
    assert anew


def test_other_objects_than_before_begin_anew(stage: Stage, tmp_path: Path) -> None:
    def meanwhile() -> None:
        stage.accelerator.close()
        changed = tmp_path / "accelerate" / "accelerate.bpf.o"
        changed.parent.mkdir()
        changed.write_bytes(
            (stage.objects / "accelerate" / "accelerate.bpf.o").read_bytes() + b"\0"
        )
        opened.append(Accelerator.open(tmp_path, pins=stage.pins))

    opened: list[Accelerator] = []
    whole, _, anew = _while_streaming(stage, meanwhile)
    assert whole
    assert anew
    assert opened[0].counters().paired == 1
    opened[0].close()


def test_remove_tells_what_it_removed_and_is_idempotent(stage: Stage) -> None:
    stage.accelerator.close()
    removed = remove(stage.pins)
    assert f"acceleration of {stage.cgroup}" in removed
    assert remove(stage.pins) == []
    assert stage.run(lambda: _talk(*pair()))
