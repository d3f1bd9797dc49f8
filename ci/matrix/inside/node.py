# SPDX-License-Identifier: Apache-2.0
"""A booted kernel as a node of a mesh: two backends, one service, a daemon, and clients that it governs.

The machine has no network but its loopback, and service and pod ranges are blackholes besides.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ci.demo.story import ADDRESS, BACKENDS, manifests
from runtime.errors import KmeshError
from runtime.kernel.cgroup import cgroup2_root
from runtime.launch.scope import Scope
from runtime.server.client import Client

RUN_DIR, PINS = Path("/run/kmesh"), Path("/sys/fs/bpf/kmesh")
SERVICES = Path("/run/services")
_BLACKHOLES = ("10.96.0.0/12", "10.244.0.0/16")
_PATIENCE = 180.0  # emulated, a kernel is ten times slower


def prepare() -> None:
    """Addresses, backends and the description of a service. Idempotent."""
    if SERVICES.is_dir():
        return
    for subnet in _BLACKHOLES:
        _ip("route", "replace", "blackhole", subnet)
    for name, (address, _) in BACKENDS.items():
        _ip("address", "replace", f"{address}/32", "dev", "lo")
        _start_backend(name, f"{address}:8080")
    SERVICES.mkdir(parents=True)
    (SERVICES / "shop.yaml").write_text(manifests(*BACKENDS))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _start_backend(name: str, place: str) -> None:
    argv = [sys.executable, "-m", "ci.demo.backend", name, place]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A daemon that ended: its status, and what it logged."""

    status: int
    log: str


class Daemon:
    """`kmesh run` in a child.

    Args:
        arguments: for the command line, besides the source.
        before: what the child does first, to be a process on a poorer host.
        run_dir: where its socket and notes are.
    """

    def __init__(
        self,
        *arguments: str,
        before: Callable[[], None] = lambda: None,
        run_dir: Path = RUN_DIR,
    ) -> None:
        self._log = Path(f"/tmp/daemon-{time.monotonic_ns()}")  # noqa: S108 - the guest is ours
        self._run_dir = run_dir
        argv = ["run", "--source", f"files:{SERVICES}", "--run-dir", str(run_dir), *arguments]
        self.pid = os.fork()
        if not self.pid:
            _become(argv, before=before, log=self._log)

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def wait_ready(self) -> dict[str, Any] | Ended:
        """Its status once it is ready, or how it ended.

        Raises:
            TimeoutError: it did neither.
        """
        end = time.monotonic() + _PATIENCE
        client = Client(self._run_dir / "kmesh.sock")
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return Ended(status=os.waitstatus_to_exitcode(status), log=self.log)
            with suppress(KmeshError, OSError):
                told: dict[str, Any] = client.get("/status")
                if told["ready"]:
                    return told
            time.sleep(0.2)
        raise TimeoutError(f"not ready in {_PATIENCE:.0f} s:\n{self.log}")

    def end(self, number: int = signal.SIGTERM) -> Ended:
        """Signal it, and wait for its end."""
        os.kill(self.pid, number)
        _, status = os.waitpid(self.pid, 0)
        return Ended(status=os.waitstatus_to_exitcode(status), log=self.log)

    def enroll(self, name: str) -> None:
        """Have it govern a new cgroup, which nobody releases."""
        cgroup = cgroup2_root() / "kmesh" / name
        cgroup.mkdir(parents=True)
        Client(self._run_dir / "kmesh.sock").post("/enroll", {"cgroup": str(cgroup)})

    def answers(self, count: int) -> Counter[str]:
        """What a governed process gets from the service, by who answered."""
        scope = Scope(cgroup2_root(), name="matrix")
        client, seen = Client(self._run_dir / "kmesh.sock"), self._seen(scope.path)
        try:
            client.post("/enroll", {"cgroup": seen})
            return _ask_in(scope, count)
        finally:
            client.post("/release", {"cgroup": seen})
            scope.remove()

    def _seen(self, cgroup: Path) -> str:
        """A cgroup's path as the daemon has it, whose mounts may be others."""
        for line in Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[fields.index("-") + 1] == "cgroup2":
                return str(Path(fields[4]) / cgroup.relative_to(cgroup2_root()))
        raise KmeshError("the daemon sees no cgroup2")


def _become(argv: Sequence[str], *, before: Callable[[], None], log: Path) -> NoReturn:
    status = 70
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        before()
        from runtime.cli.main import main

        sys.argv = ["kmesh", *argv]
        try:
            main()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:  # noqa: BLE001 - the log is where anybody will look
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _ask_in(scope: Scope, count: int) -> Counter[str]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(scope.procs_descriptor(), b"0")  # before its first connection
        os.write(writer, "\n".join(ask(ADDRESS, count).elements()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as output:
        text = output.read()
    os.waitpid(child, 0)
    return Counter(text.split())


def ask(address: str, count: int) -> Counter[str]:
    """Ask a service over HTTP, a connection each; an error counts under its name."""
    answers: Counter[str] = Counter()
    for _ in range(count):
        connection = http.client.HTTPConnection(address, 80, timeout=20)
        try:
            connection.request("GET", "/")
            answers[connection.getresponse().read().decode().strip()] += 1
        except OSError as error:
            answers[type(error).__name__] += 1
        finally:
            connection.close()
    return answers


def leftovers() -> list[str]:
    """What a daemon made and is still there."""
    return [str(path) for path in (PINS, RUN_DIR / "kmesh.sock") if path.exists()]
