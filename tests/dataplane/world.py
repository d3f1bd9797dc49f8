# SPDX-License-Identifier: Apache-2.0
"""A network namespace, cgroups and processes for one test, and nothing of them afterwards.

The namespace has no way out but a loopback; service and pod ranges are blackholes in it besides.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.features import config
from runtime.model.mesh import Protocol, ServicePort, Workload
from tests.tables.tables_model import workload

_AGENT = Path(__file__).with_name("agent.py")
_numbers = count()
VIP4, VIP6 = "10.96.0.1", "fd00:96::1"
NOWHERE = {errno.ENETUNREACH, errno.EINVAL, errno.EHOSTUNREACH}  # what a blackhole answers
BLACKHOLES = ("10.96.0.0/12", "10.244.0.0/16", "fd00:96::/64")


def refusal() -> int:
    """What connect() to a service without endpoints says on this kernel (drift.h)."""
    return errno.ECONNREFUSED if config().can_set_retval else errno.EPERM


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def chi_square(found: Mapping[str, int], weights: Mapping[str, int]) -> float:
    """How far counts are from what weights let expect (Pearson)."""
    size, total = sum(found.values()), sum(weights.values())
    return sum(
        (found.get(name, 0) - size * weight / total) ** 2 / (size * weight / total)
        for name, weight in weights.items()
        if weight
    )


_ONCE_IN_A_THOUSAND = {1: 10.8, 2: 13.8, 7: 24.3}  # chi-square by degrees of freedom


def expect_shares(sample: Callable[[int], Mapping[str, int]], weights: Mapping[str, int]) -> None:
    """Fail where two samples of their own are both further from weights than once in a thousand.

    By chance that is once in a million runs. What is wrong shows in the second at least as well as in the
    first, as it is four times as large.

    Args:
        sample: counts by name; it is told how many times as many as it takes at least.
        weights: what is to be expected, by name; nothing else may be counted.
    """
    far = _ONCE_IN_A_THOUSAND[sum(weight > 0 for weight in weights.values()) - 1]
    found: list[tuple[float, Mapping[str, int]]] = []
    for times in (1, 4):
        counts = sample(times)
        assert counts.keys() <= {name for name, weight in weights.items() if weight}, counts
        found.append((chi_square(counts, weights), counts))
        if found[-1][0] < far:
            return
    raise AssertionError(f"further than {far} from {weights}: {found}")


def serving(
    name: str,
    host: str,
    ports: Mapping[tuple[str, int], int],
    *,
    protocol: Protocol = Protocol.TCP,
    **extra: Any,
) -> Workload:
    """A workload that serves some services' ports on ports of its own."""
    services: dict[str, tuple[ServicePort, ...]] = {}
    for (service, port), target in ports.items():
        served = ServicePort(service_port=port, target_port=target, protocol=protocol)
        services[f"ns/{service}"] = (*services.get(f"ns/{service}", ()), served)
    return replace(workload(name, host, serves=(), **extra), services=services)


class Agent:
    """A child process that carries commands out inside the namespace."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, command: str, *arguments: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"do": command, "with": arguments}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["result"]


class World:
    """A context manager; `netns` is the namespace's path."""

    def __init__(self) -> None:
        self.name = f"kmesh-test-{os.getpid()}-{next(_numbers)}"
        self._stack = ExitStack()
        self.netns = Path("/run/netns") / self.name

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._run("ip", "netns", "add", self.name)
            stack.callback(self._run, "ip", "netns", "del", self.name)
            self._ip("link", "set", "lo", "up")
            for subnet in BLACKHOLES:
                self._ip("route", "add", "blackhole", subnet)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _run(self, *argv: str) -> None:
        subprocess.run(argv, check=True, capture_output=True)

    def _ip(self, *arguments: str) -> None:
        self._run("ip", "-n", self.name, *arguments)

    def add_address(self, address: str) -> None:
        self._ip("address", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))

    def swallow(self, address: str) -> None:
        """Have what is sent to an address vanish, with no answer.

        What loops back and is for nobody here is dropped without a word, on kernels without modules too.
        """
        self._ip("address", "add", "10.244.9.1/32", "dev", "lo")
        self._ip("route", "add", f"{address}/32", "dev", "lo", "src", "10.244.9.1")

    def cgroup(self, parent: Path | None = None) -> Path:
        path = (parent or cgroup2_root()) / f"{self.name}-{next(_numbers)}"
        path.mkdir()
        self._stack.callback(path.rmdir)
        return path

    def agent(self, cgroup: Path | None = None, *, script: Path = _AGENT) -> Agent:
        """Start a process in the namespace, and in a cgroup."""
        command = ["nsenter", f"--net={self.netns}", sys.executable, str(script)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._stack.callback(end_agent, Agent(process))
        if cgroup:
            (cgroup / "cgroup.procs").write_text(str(process.pid))
        return Agent(process)

    def serve(self, *places: tuple[int, str, str], kind: str = "tcp") -> dict[str, int]:
        """Start servers (family, address, name); their ports by name."""
        server = self.agent()
        return {name: server("serve", family, host, 0, name, kind) for family, host, name in places}


def end_agent(agent: Agent) -> None:
    """End a process of a world, which may have ended already."""
    process = agent.process
    assert process.stdin
    assert process.stdout
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
