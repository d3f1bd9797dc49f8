# SPDX-License-Identifier: Apache-2.0
"""What a request costs by how many routes its service has: by an Envoy, which walks them, and on the enhanced path.

    python -m ci.bench.routes [--rounds N] [--seconds N] [--output table|json]

All of a service's routes are prefixes and lead to one nginx; what is asked for takes the last one. Ways and
numbers of routes take turns within a round, and ratios are taken within a round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import click

from ci.bench.enhanced import once
from ci.bench.gate import OBJECTS, compile_all, into, start_gate
from ci.bench.measure import Result, median_row, show
from ci.bench.proxy import envoy, http_proxy
from ci.bench.stage import Stage
from ci.bench.ways import Way, wait, wrk
from runtime import ui
from runtime.kernel.datapath import DataPath
from runtime.kernel.http_ports import HttpPorts
from runtime.model.http import (
    Forward,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
    WeightedCluster,
)
from runtime.tables.http_ports import Target

SIZES = (10, 10_000)
_SERVER, _PORT, _ENVOY = "10.244.0.11", 8080, 15001
_SERVICES = {10: "10.96.0.20", 10_000: "10.96.0.21"}
_CONNECTIONS = 16
_NGINX = """
daemon off; worker_processes 1; pid {path}/nginx.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;
  uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;
  server {{ listen {host}:{port}; location / {{ return 200 ""; }} }}
}}
"""


def _prefix(number: int) -> str:
    return f"/api/v1/item-{number:05}/"


def _table(size: int) -> RouteTable:
    action = Forward((WeightedCluster("web", 1),))
    routes = tuple(
        Route(match=RouteMatch(PathMatch(PathKind.PREFIX, _prefix(number))), action=action)
        for number in range(size)
    )
    return RouteTable(name=f"{size}", virtual_hosts=(VirtualHost("all", ("*",), routes),))


class Routes:
    """A context manager; `ways` by name and number of routes."""

    def __init__(self) -> None:
        self._stage = Stage()
        self._stack = ExitStack()
        self.ways: dict[str, Way] = {}
        self.servers: list[int] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stage = stack.enter_context(self._stage)
            stage.add_address(_SERVER)
            self._start_server(stage)
            for place, size in enumerate(SIZES):
                self._start_envoy(stage, size, _ENVOY + place)
            self._start_enhanced(stage, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start_server(self, stage: Stage) -> None:
        config = stage.path / "nginx.conf"
        stage.path.chmod(0o755)
        config.write_text(_NGINX.format(path=stage.path, host=_SERVER, port=_PORT))
        self.servers.append(stage.start(["nginx", "-p", stage.path, "-c", config]).pid)

    def _start_envoy(self, stage: Stage, size: int, port: int) -> None:
        config = stage.path / f"{size}.json"
        prefixes = [_prefix(number) for number in range(size)]
        made = http_proxy((_SERVER, port), (_SERVER, _PORT), prefixes=prefixes)
        config.write_text(json.dumps(made))
        pid = stage.start(envoy(config)).pid
        self.ways[_name("one Envoy", size)] = Way(_SERVER, port, processes=(pid,))

    def _start_enhanced(self, stage: Stage, stack: ExitStack) -> None:
        path = DataPath.open(OBJECTS, pins=stage.pins, path="enhanced")
        stack.callback(path.destroy)
        pid, _ = start_gate(stage, stack, path, "gate")
        ports = HttpPorts(path.maps)
        ports.set_cluster("web", [Target(_SERVER, _PORT)])
        cgroup = stage.cgroup("client")
        path.enroll_cgroup(cgroup)
        for size in SIZES:
            ports.set_port(_SERVICES[size], 80, _table(size))
            self.ways[_name("enhanced, by the gate", size)] = Way(
                _SERVICES[size], 80, cgroup, (pid,)
            )

    def inside(self, way: Way, argv: Sequence[str]) -> list[str]:
        return [*into(way.cgroup), *self._stage.inside(argv)]

    def load(
        self,
        way: Way,
        path: str,
        *,
        connections: int,
        seconds: int,
        headers: Sequence[str] = (),
    ) -> list[str]:
        return self.inside(way, wrk(way, path, connections, seconds, headers))


def _name(way: str, size: int) -> str:
    return f"{way}, {size:,} routes"


def measure(*, rounds: int, seconds: int = 1) -> Result:
    """Compare numbers of routes; see `ci.bench`."""
    compile_all()
    runs: dict[str, list[dict[str, float]]] = {}
    with Routes() as made:
        paths = {
            _name(way, size): f"{_prefix(size - 1)}x"
            for way in ("one Envoy", "enhanced, by the gate")
            for size in SIZES
        }
        for name, path in paths.items():
            wait(made, made.ways[name], path, name=name)
        for _ in range(rounds):
            turn = {
                name: once(made, name, path=path, connections=_CONNECTIONS, seconds=seconds)
                for name, path in paths.items()
            }
            for name, run in turn.items():
                run["of few routes"] = run["requests/s"] / turn[_few(name)]["requests/s"]
                runs.setdefault(name, []).append(run)
    rows: list[Mapping[str, Any]] = [
        {"way": name, **median_row(each)} for name, each in runs.items()
    ]
    return Result("routes", "HTTP requests that take the last of a service's routes", rows)


def _few(name: str) -> str:
    return name.replace(f"{SIZES[1]:,}", f"{SIZES[0]}")


@click.command()
@click.option("--rounds", default=3, show_default=True, help="How often each is run.")
@click.option("--seconds", default=1, show_default=True, help="How long each run takes.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def main(*, rounds: int, seconds: int, output: str) -> None:
    """Measure requests by how many routes a service has."""
    show(measure(rounds=rounds, seconds=seconds), output)


if __name__ == "__main__":
    ui.main(main, name="python -m ci.bench.routes")
