# SPDX-License-Identifier: Apache-2.0
"""New connections per second: direct, through a service, with telemetry, and of who is not managed.

    python -m ci.bench.connections [ROUNDS]

wrk opens a connection for each request to an nginx in a network namespace of its own. The ways take
turns, and what counts are the medians of each round's ratios to the same round's direct connections:
absolute numbers depend on the machine. The reader of the events runs as it does in the daemon.

Two ratios: of connections a second, and of processor time a connection, of client, server and reader
together. Where the processors are the limit they are the same; the second one does not mind what
else the machine does.

"direct" is a client that is not managed while others are, by their cgroups; it is what the others
are compared with. "untouched" is the same with nothing attached anywhere, and "direct, beside
namespaces" the same where some other network namespace is managed: programs then run for everybody.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.datapath import DataPath
from runtime.kernel.telemetry import Observer
from runtime.model.mesh import NetworkAddress, Service, ServicePort, Workload
from runtime.source.update import Update
from runtime.tables.services import ServiceTables
from runtime.telemetry.counters import Counters
from runtime.telemetry.directory import Directory
from runtime.telemetry.reader import Reader

_CLONE_NEWNET = 0x40000000
_CHECKOUT = Path(__file__).resolve().parents[2]
_POD, _VIP = "10.244.0.1", "10.96.0.1"
_SECONDS, _CONNECTIONS = 1, 16
_NOBODYS = 1 << 60  # a cookie that no network namespace has
_NGINX = """
daemon off; master_process off; error_log stderr emerg; pid %(directory)s/%(port)d.pid;
events { worker_connections 1024; }
http {
  access_log off; client_body_temp_path %(directory)s; proxy_temp_path %(directory)s;
  fastcgi_temp_path %(directory)s; uwsgi_temp_path %(directory)s; scgi_temp_path %(directory)s;
  server { listen %(pod)s:%(port)d backlog=4096; location / { return 200 "x"; } }
}
"""
_UPDATE = Update(
    services=(
        Service(
            name="a",
            namespace="ns",
            hostname="a",
            addresses=(NetworkAddress(ip_address(_VIP)),),
            ports=(
                ServicePort(service_port=80, target_port=8080),
                ServicePort(service_port=81, target_port=8081),
            ),
        ),
    ),
    workloads=(
        Workload(
            uid="one",
            name="one",
            namespace="ns",
            addresses=(ip_address(_POD),),
            services={
                "ns/a": (
                    ServicePort(service_port=80, target_port=8080),
                    ServicePort(service_port=81, target_port=8081),
                )
            },
        ),
    ),
    complete=True,
)


def _enter_namespace() -> None:
    """A network namespace with a loopback and nothing else; it ends with the process."""
    assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0
    for command in (
        "link set lo up",
        f"address add {_POD}/32 dev lo",
        "route add blackhole 10.96.0.0/12",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65535")


@contextmanager
def _nginx(directory: Path, port: int, cgroup: Path | None = None) -> Iterator[int]:
    config = directory / f"nginx-{port}.conf"
    config.write_text(_NGINX % {"directory": directory, "pod": _POD, "port": port})

    def enter() -> None:
        if cgroup:
            (cgroup / "cgroup.procs").write_text("0")

    command = ["nginx", "-e", "stderr", "-c", str(config)]
    server = subprocess.Popen(command, preexec_fn=enter)  # noqa: PLW1509 - before any thread
    try:
        time.sleep(0.5)
        yield server.pid
    finally:
        server.terminate()
        server.wait()


@contextmanager
def _cgroup(name: str) -> Iterator[Path]:
    path = cgroup2_root() / f"kmesh-bench-{os.getpid()}-{name}"
    path.mkdir()
    try:
        yield path
    finally:
        path.rmdir()


class _Sample(NamedTuple):
    """Connections a second, and processor time of each in microseconds."""

    per_second: float
    cpu_us: float


def _cpu_seconds(server: int) -> float:
    """Processor time of a server, of this process, and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = Path(f"/proc/{server}/schedstat").read_text(encoding="ascii")
    mine = time.process_time() + children.ru_utime + children.ru_stime
    return mine + int(told.split()[0]) / 1e9


def _connect(address: str, cgroup: Path | None, server: int) -> _Sample:
    """What one wrk makes of an address."""
    before = _cpu_seconds(server)
    enter = ["sh", "-c", f'echo 0 > {cgroup}/cgroup.procs; exec "$@"', "sh"] if cgroup else []
    load = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS}s", "-H", "Connection: close"]
    done = subprocess.run(
        [*enter, *load, f"http://{address}/"], check=True, capture_output=True, text=True
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    number = re.search(r"(\d+) requests in", done.stdout)
    assert rate, done.stdout
    assert number, done.stdout
    assert "Non-2xx" not in done.stdout, done.stdout
    time.sleep(0.4)  # for what is still to be read
    spent = _cpu_seconds(server) - before
    return _Sample(float(rate[1]), spent / int(number[1]) * 1e6)


class _Reading:
    """The daemon's reader, in a thread."""

    def __init__(self, observer: Observer) -> None:
        self.counters = Counters(directory := Directory())
        directory.take(_UPDATE)
        self._reader = Reader(observer.events, self.counters.take)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._work = self._loop.create_task(self._reader.run())
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._work)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._work.cancel)
        self._thread.join()
        self._loop.close()
        self._reader.close()


class _Managing:
    """Who is managed besides, while one sample is taken."""

    def __init__(
        self, path: DataPath, observer: Observer, *, cgroups: Sequence[Path], followed: Path
    ) -> None:
        self._path = path
        self._observer = observer
        self._cgroups = cgroups
        self._followed = followed

    def none(self, sample: Callable[[], _Sample]) -> _Sample:
        """Nobody: no program is attached."""
        self._observer.release_cgroup(self._followed)
        for cgroup in self._cgroups:
            self._path.release_cgroup(cgroup)
        try:
            return sample()
        finally:
            for cgroup in self._cgroups:
                self._path.enroll_cgroup(cgroup)
            self._observer.enroll_cgroup(self._followed)

    def namespace(self, sample: Callable[[], _Sample]) -> _Sample:
        """A network namespace that is nobody's here."""
        self._path.enroll_netns(_NOBODYS)
        self._observer.follow_namespaces(follow=True)
        try:
            return sample()
        finally:
            self._observer.follow_namespaces(follow=False)
            self._path.release_netns(_NOBODYS)


def _rounds(ways: Mapping[str, Callable[[], _Sample]], rounds: int) -> dict[str, list[_Sample]]:
    """Every way in turn; the first round warms up and does not count."""
    seen: dict[str, list[_Sample]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        names = sorted(ways, reverse=bool(number % 2))
        for name in names:
            value = ways[name]()
            if number:
                seen[name].append(value)
    return seen


def measure(rounds: int) -> dict[str, object]:
    """The medians of all ways, and their ratios to direct connections."""
    _enter_namespace()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kmesh-bench-")))
        plain = stack.enter_context(_cgroup("compat"))
        followed = stack.enter_context(_cgroup("telemetry"))
        one = stack.enter_context(_nginx(directory, 8080))
        other = stack.enter_context(_nginx(directory, 8081, followed))
        pins = directory / "pins"
        pins.mkdir()
        path = DataPath.open(_CHECKOUT / "build/bpf", pins=pins)
        stack.callback(path.destroy)
        path.apply(ServiceTables().apply(_UPDATE))
        observer = Observer.open(_CHECKOUT / "build/bpf", pins=pins)
        stack.callback(observer.destroy)
        for cgroup in (plain, followed):
            path.enroll_cgroup(cgroup)
        observer.enroll_cgroup(followed)
        reading = _Reading(observer)
        stack.callback(reading.close)
        managed = _Managing(path, observer, cgroups=(plain, followed), followed=followed)
        seen = _rounds(
            {
                "untouched": lambda: managed.none(lambda: _connect(f"{_POD}:8080", None, one)),
                "direct, beside namespaces": lambda: managed.namespace(
                    lambda: _connect(f"{_POD}:8080", None, one)
                ),
                "direct": lambda: _connect(f"{_POD}:8080", None, one),
                "compat": lambda: _connect(f"{_VIP}:80", plain, one),
                "compat, telemetry": lambda: _connect(f"{_VIP}:80", followed, one),
                "compat, telemetry at both ends": lambda: _connect(f"{_VIP}:81", followed, other),
            },
            rounds,
        )
        time.sleep(1)
        told = {"events": reading.counters.events, "lost": observer.lost()}
    return {"ways": [_summary(name, seen) for name in seen], **told}


def _summary(name: str, seen: Mapping[str, list[_Sample]]) -> dict[str, object]:
    pairs = list(zip(seen[name], seen["direct"], strict=True))
    return {
        "way": name,
        "per_second": round(statistics.median(one.per_second for one in seen[name])),
        "ratio": round(
            statistics.median(one.per_second / other.per_second for one, other in pairs), 3
        ),
        "cpu_us": round(statistics.median(one.cpu_us for one in seen[name]), 1),
        "cpu_ratio": round(statistics.median(other.cpu_us / one.cpu_us for one, other in pairs), 3),
    }


def main() -> int:
    """Print the result as JSON."""
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 9), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
