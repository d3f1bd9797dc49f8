# SPDX-License-Identifier: Apache-2.0
"""A namespace with HTTP backends, a client, a gate and the enhanced path, and nothing of it afterwards."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.kernel.accelerate import Accelerator
from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.cleanup import cleanup
from runtime.kernel.datapath import DataPath
from runtime.kernel.gate import Gate
from runtime.kernel.http_ports import HttpPorts
from runtime.kernel.netns import netns_cookie
from runtime.launch.gate import GatePlace, ensure_gate, stop_gate
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
from tests.dataplane.world import VIP4, Agent, World, end_agent, wait_for

HTTP_AGENT = Path(__file__).with_name("http_agent.py")
PORT = 80


def to(prefix: str, *clusters: str | tuple[str, int], **extra: Any) -> Route:
    """A route for a path prefix, to clusters (with weights)."""
    chosen = tuple(
        WeightedCluster(*((one, 1) if isinstance(one, str) else one)) for one in clusters
    )
    return Route(
        match=RouteMatch(PathMatch(PathKind.PREFIX, prefix)), action=Forward(chosen), **extra
    )


def table(*routes: Route, name: str = "t") -> RouteTable:
    return RouteTable(name=name, virtual_hosts=(VirtualHost("all", ("*",), routes),))


A_AND_B = table(to("/a", "a"), to("/b", "b"))


@dataclass
class Stage:
    """A context manager.

    Attributes:
        objects: compiled objects, with the unshipped ones.
        program: the gate.
        accelerated: backends are managed too, and short-cut past TCP.
        sizes: how many elements maps hold, where not as many as usual.
    """

    objects: Path
    program: Path
    accelerated: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)
    agents: list[Agent] = field(default_factory=list)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.scratch = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="kmesh-gate-"))
            )
            self.pins = self.scratch / "pins"
            self.pins.mkdir()
            stack.callback(cleanup, self.pins)
            self.world = stack.enter_context(World())
            self.path = DataPath.open(
                self.objects, pins=self.pins, path="enhanced", sizes=self.sizes
            )
            stack.callback(self.path.destroy)
            self.place = GatePlace(
                program=self.program,
                socket=self.scratch / "gate.sock",
                log=self.scratch / "gate.log",
                cgroup=cgroup2_root() / f"{self.world.name}-gate",
            )
            stack.callback(self._end_gate)
            self.start_gate()
            self.ports = HttpPorts(self.path.maps)
            self.cgroup = self.world.cgroup()
            self.path.enroll_cgroup(self.cgroup)
            self.backends = self.accelerate() if self.accelerated else None
            self.renew()
            self.stack = stack.pop_all()
        return self

    def accelerate(self) -> Path:
        """The cgroup of backends whose connections from the gate are short-cut."""
        self.accelerator = Accelerator.open(self.objects, pins=self.pins, enhanced=self.path)
        self.path.answer_here(answers=True)
        backends = self.world.cgroup()
        self.accelerator.enroll_cgroup(backends)
        return backends

    def renew(self) -> None:
        """Other client and backend processes; nothing is left of what those before them did."""
        for agent in self.agents:
            end_agent(agent)
        self.agents.clear()
        wait_for(self._is_quiet, "no connection is left")
        self.client = self.agent(self.cgroup)
        self.backend = self.agent(self.backends)

    def _is_quiet(self) -> bool:
        status = self.status()
        return status["sessions"] == status["busy"] == status["idle"] == 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.close()

    def start_gate(self) -> int:
        """Have the gate run and listen in the world's namespace."""
        pid = ensure_gate(self.path, self.place)
        with Gate(self.place.socket) as gate:
            self.gate_port = gate.add_space(
                netns_cookie(self.world.netns, objects=self.objects), self.world.netns
            )
        return pid

    def _end_gate(self) -> None:
        stop_gate(self.path, self.place)
        log = self.place.log.read_text()
        assert "Sanitizer" not in log, log
        assert "runtime error" not in log, log

    def agent(self, cgroup: Path | None = None) -> Agent:
        made = self.world.agent(cgroup, script=HTTP_AGENT)
        self.agents.append(made)
        return made

    def status(self) -> Mapping[str, int]:
        with Gate(self.place.socket) as gate:
            return gate.status()

    def serve(self, *names: str, host: str = "127.0.0.1") -> dict[str, int]:
        """Start a server of each name, in a cluster of its own name; their ports."""
        ports = {name: self.backend("serve", host, name) for name in names}
        for name, port in ports.items():
            self.point(name, port, host)
        return ports

    def point(self, name: str, port: int, host: str = "127.0.0.1") -> None:
        """Have a cluster be one server."""
        self.ports.set_cluster(name, [Target(host, port)])

    def route(self, routes: RouteTable = A_AND_B, address: str = VIP4) -> dict[int, str]:
        return self.ports.set_port(address, PORT, routes)

    def taken(self) -> int:
        """Requests that the kernel has taken."""
        return self.path.gate_counters()["taken"]

    def ask(self, targets: Iterable[str], **extra: Any) -> list[Any]:
        """Ask for targets on one new connection; who answered each (or the status)."""
        number = self.client("connect", VIP4, PORT)
        answers = [self.client("ask", number, target, extra) for target in targets]
        self.client("close", number)
        return [answer[1] if answer[0] == 200 else answer[0] for answer in answers]

    def inside(self) -> list[str]:
        """What runs a command in the namespace, as nobody who is managed."""
        return ["nsenter", f"--net={self.world.netns}"]

    def as_client(self) -> list[str]:
        """What runs a command in the namespace, as the client."""
        script = f'echo $$ > {self.cgroup}/cgroup.procs && exec "$@"'
        return ["sh", "-c", script, "sh", *self.inside()]

    def run(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """A program in the namespace, as the client."""
        return subprocess.run(
            [*self.as_client(), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
