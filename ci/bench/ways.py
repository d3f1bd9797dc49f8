# SPDX-License-Identifier: Apache-2.0
"""Ways of an HTTP request to one nginx, all of them at once, for `ci.bench.enhanced`.

The server is in the client's network namespace, or in another one over a veth pair. Envoys are
alone, or in a row: one beside the client and one beside the server, as sidecars are. Nothing has
another thread than its one: the machine's cores are few, and what is compared are ratios.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ci.bench.floor import floor
from ci.bench.gate import OBJECTS, into, start_gate
from ci.bench.proxy import envoy, http_proxy
from ci.bench.stage import CHECKOUT, Stage
from runtime.kernel.accelerate import Accelerator
from runtime.kernel.datapath import DataPath
from runtime.kernel.home import bring_home
from runtime.kernel.http_ports import HttpPorts
from runtime.model.http import (
    DirectResponse,
    Forward,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.mesh import NetworkAddress, Service, ServicePort, Workload
from runtime.source.update import Update
from runtime.tables.http_ports import Target
from runtime.tables.services import ServiceTables

BODIES = {"0 B": 0, "1 KB": 1024, "100 KB": 100 << 10, "10 MB": 10 << 20}
# What is asked for: a body, or what a route answers without an endpoint.
ANSWER = "answer"
PATHS = {**{name: f"/{size}" for name, size in BODIES.items()}, "no endpoint": f"/{ANSWER}"}
# A request's head as browsers have it behind a mesh's tracing; all others are as short as wrk makes them.
BROWSER = "0 B, a browser's head"
PATHS[BROWSER] = PATHS["0 B"]
HEADERS = {
    BROWSER: (
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "Accept-Encoding: gzip, deflate, br",
        "Accept-Language: en-US,en;q=0.9",
        "Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; csrf=abcdefghijklmnopqrstuvwxyz0123456789",
        "x-request-id: 5f0c3a44-7f4f-4f0e-9b47-2a9b0ef3f1d3",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
}
PLACES = ("loopback", "veth")
FLOOR = "a redirect alone"  # see floor.bpf.c
LEAN = "loopback, lean ends"  # a server and a client that do as little as can be (lean.c)
_CLIENT, _SERVER, _PORT, _NEAR, _FAR = "10.244.0.1", "10.244.0.11", 8080, 15001, 15002
_COMPAT, _ENHANCED = "10.96.0.10", "10.96.0.20"
_PATIENCE = 30.0
_NAMES = {
    "gate": "enhanced, by the gate",
    "home": "enhanced, in the kernel",
    "bypass": "enhanced, past TCP",
}

_NGINX = """
daemon off; worker_processes 1; pid {path}/nginx-{port}.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; sendfile on; tcp_nopush on;
  client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;
  uwsgi_temp_path {path}/d; scgi_temp_path {path}/e; open_file_cache max=10;
  server {{
    listen {host}:{port} backlog=4096;
    location /0 {{ return 200 ""; }}
    location /answer {{ return 200 "here"; }}
    location /1024 {{ return 200 "{kilobyte}"; }}
    location / {{ root {path}/files; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a client connects to, from which cgroup, and which processes carry it."""

    host: str
    port: int
    cgroup: Path | None = None
    processes: tuple[int, ...] = ()


class Stand(Protocol):
    """What a run takes: ways, and how a client asks by them."""

    ways: dict[str, Way]
    servers: list[int]

    def inside(self, way: Way, argv: Sequence[str]) -> list[str]:
        """A client's command, in its namespace and cgroup."""

    def load(
        self,
        way: Way,
        path: str,
        *,
        connections: int,
        seconds: int,
        headers: Sequence[str] = (),
    ) -> list[str]:
        """What has so many connections ask one after the other."""


def wrk(
    way: Way, path: str, connections: int, seconds: int, headers: Sequence[str] = ()
) -> list[str]:
    """The command that loads a way."""
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s"]
    options += [word for header in headers for word in ("-H", header)]
    return ["wrk", *options, f"http://{way.host}:{way.port}{path}"]


def wait(stand: Stand, way: Way, path: str, *, name: str) -> None:
    """Until a way answers.

    Raises:
        RuntimeError: it does not.
    """
    ask = ["curl", "-sfo", "/dev/null", f"http://{way.host}:{way.port}{path}"]
    deadline = time.monotonic() + _PATIENCE
    while subprocess.run(stand.inside(way, ask), check=False).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name}: no answer")
        time.sleep(0.1)


def _mesh() -> Update:
    service = Service(
        name="web",
        namespace="ns",
        hostname="web",
        addresses=(NetworkAddress(ip_address(_COMPAT)),),
        ports=(ServicePort(service_port=80, target_port=_PORT),),
    )
    pod = Workload(
        uid="one",
        name="one",
        namespace="ns",
        addresses=(ip_address(_SERVER),),
        services={"ns/web": service.ports},
    )
    return Update(services=(service,), workloads=(pod,), complete=True)


def _routes() -> RouteTable:
    action = Forward((WeightedCluster("web", 1),))
    routes = (
        Route(
            match=RouteMatch(PathMatch(PathKind.EXACT, f"/{ANSWER}")),
            action=DirectResponse(200, b"here"),
        ),
        Route(match=RouteMatch(PathMatch(PathKind.PREFIX, "/")), action=action),
    )
    return RouteTable(name="web", virtual_hosts=(VirtualHost("all", ("*",), routes),))


class Ways:
    """A context manager; `ways` by name, direct first.

    Args:
        place: one of `PLACES`, or `LEAN`.
    """

    def __init__(self, place: str) -> None:
        self._across = place == "veth"
        self._stage = Stage()
        self._lean: Path | None = Path("lean") if place == LEAN else None  # below the stage's path
        self._stack = ExitStack()
        self.ways: dict[str, Way] = {}
        self.servers: list[int] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stage = stack.enter_context(self._stage)
            self._stack = stack
            stack.callback(self._remove_pins)
            self._far = f"{stage.name}-far" if self._across else stage.name
            self._connect_namespaces()
            self.servers.append(self._start_server())
            self.ways["direct"] = Way(_SERVER, _PORT)
            self._start_envoys()
            self._start_compat(stage)
            self._start_enhanced(stage, "gate")
            self._start_enhanced(stage, "home")
            self._start_enhanced(stage, "bypass")
            self._start_floor(stage)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _remove_pins(self) -> None:
        """The directory that the paths' own were in; they have gone before."""
        if self._stage.pins.is_dir():
            self._stage.pins.rmdir()

    def inside(self, way: Way, argv: Sequence[str]) -> list[str]:
        """A client's command, in its namespace and cgroup."""
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
        """What has so many connections ask one after the other; wrk, or the lean client."""
        if self._lean:
            where = (way.host, str(way.port), str(connections), str(seconds))
            return self.inside(way, [str(self._lean), "load", *where])
        return self.inside(way, wrk(way, path, connections, seconds, headers))

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def _connect_namespaces(self) -> None:
        near = self._stage.name
        if not self._across:
            self._stage.add_address(_SERVER)
            return
        self._ip("netns", "add", self._far)
        self._stack.callback(self._ip, "netns", "del", self._far)
        veth = ("type", "veth", "peer", "name", "far", "netns", self._far)
        self._ip("-n", near, "link", "add", "near", *veth)
        for namespace, device, address in ((near, "near", _CLIENT), (self._far, "far", _SERVER)):
            self._ip("-n", namespace, "address", "add", f"{address}/24", "dev", device)
            self._ip("-n", namespace, "link", "set", device, "up")
            self._ip("-n", namespace, "link", "set", "lo", "up")

    def _start(self, argv: Sequence[str | Path], *, far: bool) -> int:
        """Start a process that stays; its number, which is what it is after every exec."""
        namespace = self._far if far else self._stage.name
        return self._stage.start(["nsenter", f"--net=/run/netns/{namespace}", "--", *argv]).pid

    def _start_server(self) -> int:
        path = self._stage.path
        (path / "files").mkdir()
        path.chmod(0o755)
        for size in BODIES.values():
            (path / "files" / str(size)).write_bytes(b"x" * size)
        if self._lean:
            self._lean = path / self._lean
            source = CHECKOUT / "ci/bench/lean.c"
            subprocess.run(["clang", "-O2", "-o", self._lean, source], check=True)
        return self._start_one(_PORT)

    def _start_one(self, port: int, *, cgroup: Path | None = None) -> int:
        path = self._stage.path
        if self._lean:
            argv = [str(self._lean), "serve", _SERVER, str(port)]
            return self._start([*into(cgroup), *argv], far=True)
        config = path / f"nginx-{port}.conf"
        config.write_text(_NGINX.format(path=path, host=_SERVER, port=port, kilobyte="x" * 1024))
        return self._start([*into(cgroup), "nginx", "-p", path, "-c", config], far=True)

    def _start_envoys(self) -> None:
        near, far = (_CLIENT if self._across else _SERVER, _NEAR), (_SERVER, _FAR)
        alone = self._start_envoy("alone", near, (_SERVER, _PORT), far=False)
        self.ways["one Envoy"] = Way(*near, processes=(alone,))
        first = (near[0], _NEAR + 2)
        pair = (
            self._start_envoy("first", first, far, far=False),
            self._start_envoy("second", far, (_SERVER, _PORT), far=True),
        )
        self.ways["two Envoys"] = Way(*first, processes=pair)

    def _start_envoy(
        self, name: str, listens: tuple[str, int], target: tuple[str, int], *, far: bool
    ) -> int:
        config = self._stage.path / f"{name}.json"
        config.write_text(json.dumps(http_proxy(listens, target, answers=f"/{ANSWER}")))
        return self._start(envoy(config), far=far)

    def _open(self, path: str, name: str) -> DataPath:
        opened = DataPath.open(OBJECTS, pins=self._stage.pins / name, path=path)
        self._stack.callback(opened.destroy)
        return opened

    def _start_compat(self, stage: Stage) -> None:
        path = self._open("compat", "compat")
        path.apply(ServiceTables().apply(_mesh()))
        cgroup = stage.cgroup("compat")
        path.enroll_cgroup(cgroup)
        self.ways["compat"] = Way(_COMPAT, 80, cgroup)

    def _start_enhanced(self, stage: Stage, home: str) -> None:
        """An enhanced path of its own for each way home of responses."""
        path = self._open("enhanced", home)
        pid, _ = start_gate(stage, self._stack, path, home)
        if home == "home":
            bring_home(path, OBJECTS)
        ports = HttpPorts(path.maps)
        port = self._start_bypass(stage, path) if home == "bypass" else _PORT
        ports.set_cluster("web", [Target(_SERVER, port)])
        ports.set_port(_ENHANCED, 80, _routes())
        cgroup = stage.cgroup(home)
        path.enroll_cgroup(cgroup)
        self.ways[_NAMES[home]] = Way(_ENHANCED, 80, cgroup, (pid,))

    def _start_bypass(self, stage: Stage, path: DataPath) -> int:
        """A server of the same kind that is managed, as both ends on one node are; its port."""
        accelerator = Accelerator.open(OBJECTS, pins=self._stage.pins / "bypass", enhanced=path)
        self._stack.callback(accelerator.destroy)
        path.answer_here(answers=True)
        cgroup = stage.cgroup("bypass-server")
        accelerator.enroll_cgroup(cgroup)
        self.servers.append(self._start_one(_PORT + 1, cgroup=cgroup))
        return _PORT + 1

    def _start_floor(self, stage: Stage) -> None:
        """What is left when nothing is done but what takes messages past TCP."""
        client, server, port = stage.cgroup("floor"), stage.cgroup("floor-server"), _PORT + 2
        self._stack.enter_context(floor((client, server), port, stage.path))
        self.servers.append(self._start_one(port, cgroup=server))
        self.ways[FLOOR] = Way(_SERVER, port, client)
