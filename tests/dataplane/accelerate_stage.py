# SPDX-License-Identifier: Apache-2.0
"""A process of its own for each scenario: in a network namespace, and managed or not."""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from runtime.kernel.accelerate import Accelerator
from runtime.kernel.bpffs import ensure_bpffs, release_bpffs
from runtime.launch.accelerate import NEEDS
from runtime.probe.mode import explain
from runtime.probe.run import probe
from runtime.probe.verdict import Verdict

_CLONE_NEWNET = 0x40000000
PATIENCE = 120
WAIT = 30


def enter_new_netns() -> None:
    """A network namespace of this process's own, with a loopback and nothing else."""
    assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0, ctypes.get_errno()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def fork(work: Callable[[], Any]) -> tuple[int, int]:
    """Run something in a child; its pid, and where its result comes from."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        signal.alarm(PATIENCE)  # whatever hangs ends by itself
        answer = (True, work())
    except BaseException:
        answer = (False, traceback.format_exc())
    with os.fdopen(writer, "wb") as pipe:
        pickle.dump(answer, pipe)
    os._exit(0)


def result(pid: int, reader: int) -> Any:
    """What a child came to; its failure is this process's."""
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the scenario did not end: wait status {status}"
    fine, answer = pickle.loads(text)
    assert fine, answer
    return answer


@dataclass(frozen=True)
class Stage:
    """A loaded accelerator and the cgroup that it follows."""

    objects: Path
    pins: Path
    cgroup: Path
    accelerator: Accelerator

    def enter(self) -> None:
        """Be managed from now on; sockets that this process has already are not."""
        (self.cgroup / "cgroup.procs").write_text("0")

    def start(self, scenario: Callable[..., Any], *args: Any, managed: bool = True) -> Any:
        def work() -> Any:
            enter_new_netns()
            if managed:
                self.enter()
            return scenario(*args)

        return fork(work)

    def run(self, scenario: Callable[..., Any], *args: Any, managed: bool = True) -> Any:
        """Play a scenario in a process and a network namespace of its own."""
        return result(*self.start(scenario, *args, managed=managed))

    def compare(self, scenario: Callable[..., Any], *args: Any) -> Any:
        """Play a scenario over plain TCP and short-cut: what is seen must be the same."""
        before = self.accelerator.counters()
        plain = self.run(scenario, *args, managed=False)
        assert self.accelerator.counters() == before, "an unmanaged connection was touched"
        seen = self.run(scenario, *args)
        after = self.accelerator.counters()
        assert after.paired > before.paired, "no connection was enrolled"
        assert after.shortened > before.shortened, "nothing was short-cut"
        assert seen == plain
        return seen


@cache
def _why_unsound(objects: Path) -> str | None:
    """What this kernel was seen to do wrong, or None; a check that could not be made says nothing."""
    broken = [
        finding
        for finding in probe(objects=objects).findings
        if finding.capability in NEEDS and finding.verdict in (Verdict.ABSENT, Verdict.BROKEN)
    ]
    return explain(broken[0]) if broken else None


@pytest.fixture
def stage(objects: Path, pins: Path, cgroup: Path) -> Iterator[Stage]:
    """An accelerator that follows one cgroup."""
    if why := _why_unsound(objects):
        pytest.skip(f"not to be accelerated: {why}")
    ensure_bpffs(pins)
    accelerator = Accelerator.open(objects, pins=pins)
    try:
        accelerator.enroll_cgroup(cgroup)
        yield Stage(objects, pins, cgroup, accelerator)
    finally:
        accelerator.destroy()
        release_bpffs(pins)


def listening(host: str = "127.0.0.1", *, port: int = 0, blocking: bool = False) -> socket.socket:
    """A listening socket that does not block in the kernel: Python itself waits for it."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.settimeout(None if blocking else WAIT)
    if host == "::":
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    made.listen(1024)
    return made


def connected(host: str, port: int, *, blocking: bool = False, source: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.settimeout(None if blocking else WAIT)
    if source:
        made.bind((host, source))
    made.connect((host, port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def accepted(listener: socket.socket) -> socket.socket:
    made, _ = listener.accept()
    made.settimeout(WAIT)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def pair(
    host: str = "127.0.0.1", *, listen: str | None = None
) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection: client, server."""
    with listening(listen or host) as listener:
        client = connected(host, listener.getsockname()[1])
        return client, accepted(listener)


def exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer at the end of the stream."""
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def readable(sock: socket.socket, seconds: float = 20) -> int:
    """Wait for something to happen to a socket: poll's events, 0 when nothing does."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLPRI | select.POLLRDHUP)
    events = poll.poll(seconds * 1000)
    return events[0][1] if events else 0
