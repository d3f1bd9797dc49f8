# SPDX-License-Identifier: Apache-2.0
"""Where benchmarks run: a network namespace without a way out, and nothing of it afterwards."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.cleanup import cleanup

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = CHECKOUT / ".venv" / "bin"
BLACKHOLES = ("10.96.0.0/12", "10.244.0.0/16")  # services, pods
_PATIENCE = 10.0  # seconds for a process to end after SIGTERM


class Stage:
    """A context manager; `path` is a scratch directory, `name` carries this process's number."""

    def __init__(self) -> None:
        self.name = f"kmesh-bench-{os.getpid()}"
        self.stack = ExitStack()
        self.path = Path()
        self.pins = Path("/sys/fs/bpf") / self.name

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=self.name)))
            stack.callback(cleanup, self.pins)  # what a daemon that failed left
            self._ip("netns", "add", self.name)
            stack.callback(self._ip, "netns", "del", self.name)
            self._ip("-n", self.name, "link", "set", "lo", "up")
            for subnet in BLACKHOLES:
                self._ip("-n", self.name, "route", "add", "blackhole", subnet)
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.close()

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def add_address(self, address: str) -> None:
        self._ip("-n", self.name, "address", "add", f"{address}/32", "dev", "lo")

    def inside(self, argv: Sequence[str | Path]) -> list[str]:
        """The command, inside the namespace."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *map(str, argv)]

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """Start a process inside, which ends with the stage at the latest."""
        process = subprocess.Popen(
            self.inside(argv),
            env=None if env is None else {**os.environ, **env},
            stdout=stdout,
            stderr=stderr,
            cwd=CHECKOUT,
            text=True,
            start_new_session=True,
        )
        self.stack.callback(end, process)
        return process

    def cgroup(self, name: str) -> Path:
        """A cgroup that is removed with the stage."""
        path = cgroup2_root() / f"{self.name}-{name}"
        path.mkdir()
        self.stack.callback(path.rmdir)
        return path


def end(process: subprocess.Popen[Any]) -> None:
    """SIGTERM, and SIGKILL where that does not do. Idempotent."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
