# SPDX-License-Identifier: Apache-2.0
"""An engine of our own, where none answers: its data in the cache, no bridge, no iptables, ended when done.

Two processes: containerd and dockerd, each with its own directories, so that nothing of theirs
meets an engine that the host may get later. Sockets stand in a short directory, for a socket's path
may not be longer than 107 bytes. A run that was killed leaves both behind; the next run finds them
by their pid files and goes on with them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.cache import content_key, require_space, translate_os_error
from builder.engine import Engine, EngineError
from runtime.errors import KmeshError

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_STEP_SECONDS = 0.1
_SPACE = 3_000_000_000
_RUN = Path("/run/kmesh-build")
_CONTAINERD = """\
version = 2
root = "{data}/containerd"
state = "{run}/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{run}/containerd.sock"
[ttrpc]
address = "{run}/containerd.sock.ttrpc"
"""


@dataclass(frozen=True)
class PrivateEngine:
    """Where a private engine keeps what it has.

    Attributes:
        data: images and layers; kept, so that the next build is quick.
        run: sockets and pid files.
    """

    data: Path
    run: Path

    @classmethod
    def of(cls, cache: Path) -> PrivateEngine:
        """The engine that belongs to a cache directory."""
        return cls(cache / "engine", _RUN / content_key(str(cache))[:12])

    @property
    def url(self) -> str:
        """What DOCKER_HOST is to be, to reach it."""
        return f"unix://{self.run}/docker.sock"

    def running(self) -> bool:
        """Whether its dockerd is alive."""
        return _alive(self._pid("docker"), "dockerd")

    @property
    def kept(self) -> bool:
        """Whether a user wants it to stay; without the mark, what runs was left by a killed build."""
        return self.running() and (self.run / "keep").exists()

    def keep(self) -> None:
        """Mark it as one that stays."""
        (self.run / "keep").touch()

    def start(self) -> Engine:
        """Start it, or connect to it where it runs.

        Raises:
            KmeshError: not root, or no dockerd on this host, or no space, or it does not come up.
        """
        if self.running():
            return self._connect(None)
        self.stop()
        _require_programs()
        require_space(self.data, _SPACE)
        with translate_os_error(self.data):
            self.data.mkdir(parents=True, exist_ok=True)
            self.run.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.run / "containerd.toml").write_text(
                _CONTAINERD.format(data=self.data, run=self.run)
            )
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and remove its sockets; images stay. Nothing happens where it does not run."""
        for name, program in (("docker", "dockerd"), ("containerd", "containerd")):
            pid = self._pid(name)
            if _alive(pid, program):
                _end(pid)
        _unmount_below(self.run)
        _unmount_below(self.data)
        shutil.rmtree(self.run, ignore_errors=True)
        if _RUN.is_dir() and not any(_RUN.iterdir()):
            _RUN.rmdir()

    def _start(self) -> Engine:
        containerd = self._spawn("containerd", ["--config", str(self.run / "containerd.toml")])
        (self.run / "containerd.pid").write_text(str(containerd.pid))
        _wait((self.run / "containerd.sock").exists, containerd, self._log("containerd"))
        dockerd = self._spawn("dockerd", self._arguments())
        return self._connect(dockerd)

    def _arguments(self) -> list[str]:
        return [
            f"--host={self.url}",
            f"--containerd={self.run}/containerd.sock",
            f"--data-root={self.data}/docker",
            f"--exec-root={self.run}/docker",
            f"--pidfile={self.run}/docker.pid",
            "--log-level=warn",
            "--bridge=none",
            "--iptables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ]

    def _spawn(self, program: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._log(program).open("wb") as log:
            return subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for us: we end them in order
            )

    def _log(self, program: str) -> Path:
        return self.data / f"{program}.log"

    def _connect(self, child: subprocess.Popen[bytes] | None) -> Engine:
        found: list[Engine] = []

        def answers() -> bool:
            try:
                found.append(Engine.connect(self.url, private=True))
            except EngineError:
                return False
            return True

        _wait(answers, child, self._log("dockerd"))
        return found[0]

    def _pid(self, name: str) -> int:
        try:
            return int((self.run / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return 0


def _require_programs() -> None:
    if os.geteuid() != 0:
        hint = "start Docker, set DOCKER_HOST, or run as root: sudo make docker"
        raise KmeshError(
            "no Docker engine answers, and starting a private one needs root", hint=hint
        )
    for program in ("dockerd", "containerd"):
        if shutil.which(program) is None:
            hint = "install one (Debian: apt-get install docker.io), or set DOCKER_HOST"
            raise KmeshError(
                f"no Docker engine answers, and there is no {program} to start", hint=hint
            )


def _wait(ready: Callable[[], bool], child: subprocess.Popen[bytes] | None, log: Path) -> None:
    """Wait until something is so; the process that should make it so must live.

    Raises:
        EngineError: the process ended, or took too long; with its last lines.
    """
    end = time.monotonic() + _START_SECONDS
    while not ready():
        gone = child is not None and child.poll() is not None
        if gone or time.monotonic() > end:
            lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
            why = "ended at once" if gone else f"does not answer after {_START_SECONDS:.0f} s"
            said = f": {lines[-1]}" if lines else ""
            raise EngineError(f"the private Docker engine {why}{said}", hint=f"its log is {log}")
        time.sleep(_STEP_SECONDS)


def _alive(pid: int, program: str) -> bool:
    """Whether a process lives and still is the program that its pid file was written for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return Path(f"/proc/{pid}/comm").read_text().strip() == program and state != "Z"
    except OSError:
        return False


def _end(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        end = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < end:
            if _gone(pid):
                return
            time.sleep(_STEP_SECONDS)


def _gone(pid: int) -> bool:
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    except ChildProcessError:  # a run before this one started it
        pass
    return not Path(f"/proc/{pid}").exists()


def _unmount_below(directory: Path) -> None:
    """Detach what a killed engine left mounted."""
    mounts = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for target in sorted((m for m in mounts if m.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
