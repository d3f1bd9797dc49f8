# SPDX-License-Identifier: Apache-2.0
"""What requests and changes cost the gate where it chooses the endpoint, by how many endpoints there are.

    python -m ci.bench.chosen [--rounds N] [--seconds N] [--output table|json]

All endpoints are addresses of one nginx. Ratios are taken within a round, in which ways of choosing and numbers of
endpoints take turns. The first requests open the connections and are not measured. When a change is in force is
counted from the first request after the daemon has written it; meanwhile the gate is asked for its status
without a pause: what took longest is how long it did nothing else.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from ci.bench.gate import OBJECTS, compile_all, into, start_gate
from ci.bench.measure import Result, median_row, show
from ci.bench.stage import Stage
from runtime import ui
from runtime.kernel.datapath import DataPath
from runtime.kernel.gate import Gate
from runtime.kernel.http_ports import HttpPorts
from runtime.model.http import (
    Balancer,
    CircuitBreakers,
    Cluster,
    Endpoints,
    Forward,
    HashKind,
    HashPolicy,
    HttpEndpoint,
    OutlierDetection,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.mesh import Locality
from runtime.tables.http_govern import govern
from runtime.tables.http_ports import Target

SIZES = (10, 1_000, 10_000)
_PLAIN = Cluster(name="web", panic_percent=0, breakers=CircuitBreakers(max_requests=1_000_000))
_OUTLIER = OutlierDetection(
    consecutive_5xx=1, max_ejection_percent=100, base_ejection_ms=300_000, max_ejection_ms=300_000
)
CLUSTERS = {
    "not governed": None,
    "in turn": _PLAIN,
    "least request": replace(_PLAIN, balancer=Balancer.LEAST_REQUEST),
    "unequal weights": _PLAIN,
    "localities": replace(_PLAIN, locality_weighted=True),
    "by a hash": replace(_PLAIN, balancer=Balancer.RING_HASH),
}
_SERVICE, _PORT = "10.96.0.20", 8080
_FIRST = int(IPv4Address("127.1.0.0"))
_CONNECTIONS = 16
_REQUESTS = 200  # one after the other; of those that fail a fifth of the endpoints at most
_OTHER = 202  # says the server at the next port
_NGINX = """
daemon off; worker_processes 1; worker_rlimit_nofile 65536; pid {path}/nginx.pid; error_log stderr;
events {{ worker_connections 65000; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;
  uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;
  server {{
    listen 0.0.0.0:{port} backlog=65535;
    location / {{ return 200 ""; }}
    location /fails {{ return 500 ""; }}
  }}
  server {{ listen 0.0.0.0:{other} backlog=65535; location / {{ return 202 ""; }} }}
}}
"""
_USERS = 'request = function() return wrk.format("GET", "/", {["x-user"] = math.random(1e9)}) end'


def _endpoints(number: int, *, kind: str = "", first: int = _FIRST, port: int = _PORT) -> Endpoints:
    """So many; they differ where their kind says so."""
    weighs, placed = kind == "unequal weights", kind == "localities"
    made = tuple(
        HttpEndpoint(
            address=IPv4Address(first + index),
            port=port,
            weight=1 + index % 16 if weighs else 1,
            locality=Locality(zone=str(index % 3 if placed else 0)),
            locality_weight=1 + index % 3,
        )
        for index in range(number)
    )
    return Endpoints(name="web", endpoints=made)


def _routes(cluster: str) -> RouteTable:
    by_user = (HashPolicy(kind=HashKind.HEADER, name="x-user"),)
    action = Forward((WeightedCluster(cluster, 1),), hash_policies=by_user)
    route = Route(match=RouteMatch(PathMatch(PathKind.PREFIX, "/")), action=action)
    return RouteTable(name="web", virtual_hosts=(VirtualHost("all", ("*",), (route,)),))


class Chosen:
    """A context manager: a gate with one service, whose cluster is what was `put` last."""

    def __init__(self) -> None:
        self._stage = Stage()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stage = stack.enter_context(self._stage)
            self._stage.path.chmod(0o755)
            config, self._script = stage.path / "nginx.conf", stage.path / "users.lua"
            config.write_text(_NGINX.format(path=stage.path, port=_PORT, other=_PORT + 1))
            self._script.write_text(_USERS)
            stage.start(["nginx", "-p", stage.path, "-c", config])
            path = DataPath.open(OBJECTS, pins=stage.pins, path="enhanced")
            stack.callback(path.destroy)
            self._gate, self._socket = start_gate(stage, stack, path, "chosen")
            self._ports = HttpPorts(path.maps)
            self._cgroup = stage.cgroup("client")
            path.enroll_cgroup(self._cgroup)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def put(self, cluster: Cluster | None, endpoints: Endpoints) -> None:
        """Have the service's cluster be this, None for one that the kernel chooses in."""
        targets = [Target(one.address, one.port, one.weight) for one in endpoints.endpoints]
        self._ports.set_cluster(
            cluster.name if cluster else "web",
            targets,
            hashes=cluster is not None and cluster.balancer is Balancer.RING_HASH,
            governed=govern(cluster, endpoints) if cluster else None,
        )

    def lead_to(self, name: str, *, by_gate: bool) -> None:
        """Have the service's routes lead to a cluster, and no other be there."""
        written = self._ports.write(_routes(name), gate_chooses=(name,) if by_gate else ())
        self._ports.point(_SERVICE, 80, written)
        self._ports.sweep()
        self._ports.keep_clusters((name,))

    def spent(self) -> int:
        """Processor time of the gate, in ns."""
        return int(Path(f"/proc/{self._gate}/schedstat").read_text(encoding="ascii").split()[0])

    def load(self, seconds: int) -> tuple[float, int]:
        """Requests a second, and requests."""
        told = self._run(
            *("wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--timeout", "20s"),
            *("-s", str(self._script), f"http://{_SERVICE}/"),
        )
        rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
        number = re.search(r"(\d+) requests in", told)
        if not rate or not number or "Non-2xx" in told or "Socket errors" in told:
            raise RuntimeError(f"wrk: {told}")
        return float(rate[1]), int(number[1])

    def ask(self, path: str, number: int) -> list[tuple[int, float]]:
        """Requests one after the other, on one connection: status and seconds of each."""
        return _told(self._run(*_curl(path, number)))

    def ask_watched(self, number: int) -> tuple[list[tuple[int, float]], float]:
        """The same, and for how long at most the gate had no time for anybody else meanwhile."""
        with (
            subprocess.Popen(
                self._as_client(*_curl("", number)), stdout=subprocess.PIPE, text=True
            ) as asking,
            Gate(self._socket) as gate,
        ):
            longest = 0.0
            while asking.poll() is None:
                began = time.perf_counter()
                gate.status()
                longest = max(longest, time.perf_counter() - began)
            assert asking.stdout
            return _told(asking.stdout.read()), longest

    def _as_client(self, *argv: str) -> list[str]:
        return [*into(self._cgroup), *self._stage.inside(argv)]

    def _run(self, *argv: str) -> str:
        command = self._as_client(*argv)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _curl(path: str, number: int) -> list[str]:
    form = "%{http_code} %{time_total}\\n"
    return ["curl", "-so", "/dev/null", "-w", form, f"http://{_SERVICE}/{path}?[1-{number}]"]


def _told(text: str) -> list[tuple[int, float]]:
    return [(int(code), float(spent)) for code, spent in map(str.split, text.splitlines())]


def _requests(kind: str, size: int, seconds: int) -> dict[str, float]:
    """With a gate of its own: descriptors may be too few for the connections of two."""
    cluster = CLUSTERS[kind]
    with Chosen() as chosen:
        chosen.put(cluster, _endpoints(size, kind=kind))
        chosen.lead_to("web", by_gate=cluster is not None)
        chosen.load(1 + size // 2_500)
        before = chosen.spent()
        rate, number = chosen.load(seconds)
        return {"requests/s": rate, "gate us": (chosen.spent() - before) / 1e3 / max(number, 1)}


def measure(*, rounds: int, seconds: int = 2) -> Result:
    """Requests to clusters of each kind and size; see `ci.bench`."""
    compile_all()
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for kind in list(CLUSTERS) * rounds:
        turn = {size: _requests(kind, size, seconds) for size in SIZES}
        for size, run in turn.items():
            for what in ("requests/s", "gate us"):
                run[f"{what} of {SIZES[0]}'s"] = run[what] / turn[SIZES[0]][what]
            runs.setdefault((kind, size), []).append(run)
    rows: list[Mapping[str, Any]] = [
        {"chosen": kind, "endpoints": size, **median_row(each)}
        for (kind, size), each in runs.items()
    ]
    return Result("chosen", "HTTP requests whose endpoint the gate chooses, by endpoints", rows)


def _change(chosen: Chosen, size: int, name: str) -> dict[str, float]:
    """All endpoints are others; then some of them fail once each, which ejects them."""
    cluster = replace(_PLAIN, name=name, outlier=_OUTLIER, balancer=Balancer.LEAST_REQUEST)
    chosen.put(cluster, _endpoints(size))
    chosen.lead_to(name, by_gate=True)
    chosen.ask("", _REQUESTS)
    began = time.perf_counter()
    chosen.put(cluster, _endpoints(size, port=_PORT + 1))
    daemon = time.perf_counter() - began
    answers, longest = chosen.ask_watched(_REQUESTS)
    until = [code for code, _ in answers].index(_OTHER)
    chosen.put(cluster, _endpoints(size))
    chosen.ask("", 1)
    before = chosen.spent()
    number = min(_REQUESTS, size // 5)
    chosen.ask("", number)
    plain = chosen.spent() - before
    chosen.ask("fails", number)
    return {
        "daemon ms": daemon * 1e3,
        "in force ms": sum(seconds for _, seconds in answers[: until + 1]) * 1e3,
        "nothing else ms": longest * 1e3,
        "us a request": plain / 1e3 / number,
        "us that ejects": (chosen.spent() - before - plain) / 1e3 / number,
    }


def measure_changes(*, rounds: int) -> Result:
    """A change of the endpoints, and ejections, at each size; see `ci.bench`."""
    compile_all()
    names = (f"web-{number}" for number in count())
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    with Chosen() as chosen:
        for size in SIZES * rounds:
            runs[size].append(_change(chosen, size, next(names)))
    rows = [{"endpoints": size, **median_row(each)} for size, each in runs.items()]
    return Result("changed", "changes of a cluster that the gate chooses in, by endpoints", rows)


@click.command()
@click.option("--rounds", default=3, show_default=True, help="How often each is run.")
@click.option("--seconds", default=2, show_default=True, help="How long each load takes.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def main(*, rounds: int, seconds: int, output: str) -> None:
    """Measure requests and changes of clusters whose endpoints the gate chooses."""
    show(measure_changes(rounds=rounds), output)
    show(measure(rounds=rounds, seconds=seconds), output)


if __name__ == "__main__":
    ui.main(main, name="python -m ci.bench.chosen")
