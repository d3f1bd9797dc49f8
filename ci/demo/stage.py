# SPDX-License-Identifier: Apache-2.0
"""What the demo starts, and that all of it ends: processes, files, the daemon and what it made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ci.demo import tell

KMESH = Path(sys.executable).with_name("kmesh")
KMESHCTL = Path(sys.executable).with_name("kmeshctl")
_PATIENCE = 60  # seconds; online compilation may take a while


class DemoError(Exception):
    """Something was not as the demo says it is."""


class Stage:
    """Everything the demo runs; leaving it ends and removes all of it, whatever happened."""

    def __init__(self, *, mode: str = "compat") -> None:
        self.mode = mode
        self._exit = ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="kmesh-demo-"))
        self._exit.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.services = self.directory / "services"
        self.services.mkdir()
        self.pins = Path(f"/sys/fs/bpf/kmesh-demo-{os.getpid()}")
        self.run_dir = self.directory / "run"
        self.environment = {
            **os.environ,
            "KMESH_RUN_DIR": str(self.run_dir),
            "KMESH_PINS": str(self.pins),
            "PATH": f"{KMESH.parent}:{os.environ.get('PATH', '')}",
        }
        self._daemon: subprocess.Popen[str] | None = None
        self._log: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # an impatient Ctrl-C is to leave nothing behind
        self._exit.close()

    def run(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Raises:
            DemoError: it failed (with `check`).
        """
        done = subprocess.run(
            argv,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
        if check and done.returncode != 0:
            raise DemoError(f"{argv[0]} ended with status {done.returncode}: {done.stderr.strip()}")
        return done

    def show(self, argv: Sequence[str], *, check: bool = True) -> list[str]:
        """Run a command with its command line and its output shown; returns the lines."""
        tell.command(argv)
        done = self.run(argv, check=check)
        lines = (done.stdout + done.stderr).splitlines()
        tell.output(lines)
        return lines

    def ask(self, question: str) -> Any:
        """What `kmeshctl QUESTION` says, from JSON."""
        return json.loads(self.run([str(KMESHCTL), question, "--output", "json"]).stdout)

    def start_backend(self, name: str, *places: str) -> None:
        """Start a backend, and wait until it listens."""
        argv = [sys.executable, "-m", "ci.demo.backend", name, *places]
        process = self._start(argv, stdout=subprocess.PIPE, text=True)
        self._exit.callback(_end, process)
        assert process.stdout is not None
        if process.stdout.readline() != "up\n":
            raise DemoError(f"the backend {name} did not start on {', '.join(places)}")

    def start_helper(self, what: str, argv: Sequence[str], *, says: str, log: str) -> None:
        """Start something that says that it is up, in a file of that name; it ends with the stage.

        Raises:
            DemoError: it does not say so in time.
        """
        path = self.launch(argv, log=log)
        self.wait_for(lambda: says in path.read_text(), f"{what} did not start")

    def launch(self, argv: Sequence[str], *, log: str) -> Path:
        """Start something that ends with the stage; gives the file that it writes to."""
        path = self.directory / log
        with path.open("w") as file:
            process = self._start(argv, stdout=file, stderr=file)
        self._exit.callback(_end, process)
        return path

    @property
    def access_log(self) -> list[str]:
        """What the daemons wrote on their standard output."""
        return (self.directory / "access.log").read_text().splitlines()

    def start_daemon(self, *arguments: str) -> list[str]:
        """Start `kmesh run`, wait until it is ready; returns its log so far.

        Raises:
            DemoError: it ended, or was not ready in time.
        """
        source = arguments or ("--source", f"files:{self.services}")
        argv = ["kmesh", "run", "--mode", self.mode, *source]
        tell.command(argv)
        self._log = []
        with (self.directory / "access.log").open("a") as out:
            self._daemon = self._start(
                [str(KMESH), *argv[1:]], stdout=out, stderr=subprocess.PIPE, text=True
            )
        self._exit.callback(self.stop_daemon)
        threading.Thread(target=self._read_log, daemon=True).start()
        self.wait_for(self._is_ready, "the daemon was not ready in time")
        self.wait_for(lambda: "controller Start" in "".join(self._log), "no word of its start")
        return list(self._log)

    def _start(self, argv: Sequence[str], **more: Any) -> subprocess.Popen[str]:
        # In a session of its own: Ctrl-C is for the demo, which ends the others in order.
        return subprocess.Popen(argv, env=self.environment, start_new_session=True, **more)

    def _read_log(self) -> None:
        assert self._daemon is not None
        assert self._daemon.stderr is not None
        log = self._log
        for line in self._daemon.stderr:
            log.append(line.rstrip())

    def _is_ready(self) -> bool:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            raise DemoError("kmesh run ended:\n" + "\n".join(self._log))
        url = "http://127.0.0.1:15200/debug/ready"
        return self.run(["curl", "-sf", "-m", "2", url], check=False).returncode == 0

    def wait_for(self, condition: Any, complaint: str, *, seconds: float = _PATIENCE) -> float:
        """Wait until a condition holds; returns after how many seconds.

        Raises:
            DemoError: it does not in time.
        """
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise DemoError(complaint)
            time.sleep(0.05)
        return time.monotonic() - began

    def kill_daemon(self) -> int:
        """End the daemon with SIGKILL; returns which process it was."""
        daemon, self._daemon = self._daemon, None
        assert daemon is not None
        daemon.kill()
        daemon.wait()
        self._exit.callback(self.run, [str(KMESH), "cleanup"], check=False)  # if none follows it
        return daemon.pid

    def at_end(self, argv: Sequence[str]) -> None:
        """Have a command run at the end, whatever happens until then."""
        self._exit.callback(self.run, argv, check=False)

    def start_talking(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command that is told what to do on its standard input, and ends with that."""
        pipe = subprocess.PIPE
        process = self._start(argv, stdin=pipe, stdout=pipe, text=True)
        self._exit.callback(_end, process)
        return process

    def start_in_background(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command whose output is to be read; it ends with the stage at the latest."""
        process = self._start(argv, stdout=subprocess.PIPE, text=True)
        self._exit.callback(_end, process)
        return process

    def add_address(self, address: str) -> None:
        """Have an address on the loopback."""
        length = 128 if ":" in address else 32
        nodad = ["nodad"] if ":" in address else []  # usable at once, with no neighbour to ask
        self.run(["ip", "address", "add", f"{address}/{length}", "dev", "lo", *nodad])

    def stop_daemon(self) -> int | None:
        """End the daemon with SIGTERM, and clean up after it if it does not. Idempotent."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return None
        status = _end(daemon)
        if status != 0:
            subprocess.run([KMESH, "cleanup"], env=self.environment, check=False)
        return status

    def leftovers(self) -> list[Path]:
        """What the daemon made and is still there."""
        return [path for path in (self.pins, self.run_dir) if path.exists()]


def _end(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
