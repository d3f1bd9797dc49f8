# SPDX-License-Identifier: Apache-2.0
"""Same-node acceleration against plain TCP, as ratios of one run in which the two take turns.

    python -m ci.bench.accelerate [ROUNDS]

Two processes of one managed cgroup talk over loopback in a network namespace of their own; for plain
TCP the same processes are outside of the cgroup. Absolute numbers depend on the machine: compare
only within a run.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runtime.kernel.accelerate import Accelerator, remove
from runtime.kernel.bpffs import ensure_bpffs, release_bpffs
from runtime.kernel.cgroup import cgroup2_root

_CLONE_NEWNET = 0x40000000
_SECONDS = 2.0
_CHECKOUT = Path(__file__).resolve().parents[2]
_SIZES = (64, 1024, 16384)


def _pair() -> tuple[socket.socket, socket.socket]:
    listener = socket.socket()
    listener.settimeout(10)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = socket.socket()
    client.settimeout(10)
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    for end in (client, server):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


def _receive(sock: socket.socket, poll: select.poll, buffer: bytearray, size: int) -> None:
    """So many bytes, waiting as an event loop does."""
    while size > 0:
        try:
            got = sock.recv_into(buffer, size)
        except BlockingIOError:
            poll.poll()
            continue
        if not got:
            raise EOFError
        size -= got


def _send(sock: socket.socket, poll: select.poll, data: memoryview) -> None:
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            poll.poll()


def _poll(sock: socket.socket, event: int) -> select.poll:
    poll = select.poll()
    poll.register(sock, event)
    return poll


def _echo(server: socket.socket, size: int) -> None:
    poll, room, buffer = (
        _poll(server, select.POLLIN),
        _poll(server, select.POLLOUT),
        bytearray(size),
    )
    while True:
        _receive(server, poll, buffer, size)
        _send(server, room, memoryview(buffer))


def _drain(server: socket.socket, size: int) -> None:
    poll, buffer = _poll(server, select.POLLIN), bytearray(1 << 18)
    del size
    while True:
        _receive(server, poll, buffer, len(buffer))


def _round_trips(client: socket.socket, size: int) -> dict[str, float]:
    """Requests and answers of one size, one after the other."""
    poll, room = _poll(client, select.POLLIN), _poll(client, select.POLLOUT)
    message, buffer, times = memoryview(bytes(size)), bytearray(size), []
    end = time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end:
        _send(client, room, message)
        _receive(client, poll, buffer, size)
        times.append(time.perf_counter() - start)
    return {"per_second": len(times) / sum(times), "p50_us": statistics.median(times) * 1e6}


def _bulk(client: socket.socket, size: int) -> dict[str, float]:
    """One way, as fast as it goes."""
    room, message, sent = _poll(client, select.POLLOUT), memoryview(bytes(size)), 0
    start = time.perf_counter()
    while time.perf_counter() < start + _SECONDS:
        _send(client, room, message)
        sent += size
    return {"mb_per_second": sent / (time.perf_counter() - start) / 1e6}


def _in_child(
    cgroup: Path,
    serve: Callable[[socket.socket, int], None],
    measure: Callable[[socket.socket, int], dict[str, float]],
    size: int,
) -> dict[str, float]:
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            (cgroup / "cgroup.procs").write_text("0")
            client, server = _pair()
            if not (other := os.fork()):
                client.close()
                try:
                    serve(server, size)
                finally:
                    os._exit(0)
            server.close()
            os.write(writer, json.dumps(measure(client, size)).encode())
            client.close()
            os.waitpid(other, 0)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    measured: dict[str, float] = json.loads(answer)
    return measured


def _compare(plain: Path, managed: Path, rounds: int) -> list[dict[str, object]]:
    kinds = [(f"round trips, {size} bytes", _echo, _round_trips, size) for size in _SIZES]
    kinds += [(f"bulk, writes of {size} bytes", _drain, _bulk, size) for size in (4096, 262144)]
    seen: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(rounds):
        for name, serve, measure, size in kinds:
            for how, cgroup in (("plain", plain), ("accelerated", managed)):
                for metric, value in _in_child(cgroup, serve, measure, size).items():
                    seen.setdefault((name, metric, how), []).append(value)
    rows: list[dict[str, object]] = []
    for (name, metric, how), values in seen.items():
        if how == "plain":
            before = statistics.median(values)
            after = statistics.median(seen[name, metric, "accelerated"])
            rows.append(
                {
                    "what": name,
                    "metric": metric,
                    "plain": round(before, 1),
                    "accelerated": round(after, 1),
                    "ratio": round(after / before, 2),
                }
            )
    return rows


def measure(rounds: int) -> list[dict[str, object]]:
    """Make a place, measure in turns, and leave nothing behind.

    Args:
        rounds: how often each is measured; medians count.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    names = [cgroup2_root() / f"kmesh-bench-{os.getpid()}-{name}" for name in ("plain", "managed")]
    with tempfile.TemporaryDirectory(prefix="kmesh-bench-") as directory:
        pins = Path(directory)
        ensure_bpffs(pins)
        try:
            for name in names:
                name.mkdir()
            accelerator = Accelerator.open(_CHECKOUT / "build" / "bpf", pins=pins)
            accelerator.enroll_cgroup(names[1])
            return _compare(names[0], names[1], rounds)
        finally:
            remove(pins)
            release_bpffs(pins)
            for name in names:
                name.rmdir()


def main() -> None:
    rows = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    print(f"{'':32}{'metric':>14}{'plain':>12}{'accelerated':>13}{'ratio':>7}")
    for row in rows:
        print("{what:32}{metric:>14}{plain:>12}{accelerated:>13}{ratio:>7}".format(**row))


if __name__ == "__main__":
    main()
