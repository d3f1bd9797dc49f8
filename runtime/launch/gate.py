# SPDX-License-Identifier: Apache-2.0
"""The gate's life: found running, started, or replaced by this version's without a closed connection.

It is a process of its own, in a session and a cgroup of its own, so that it outlives the daemon.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from runtime import log
from runtime.control.rundir import RUN_DIR
from runtime.errors import KmeshError
from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.datapath import DataPath
from runtime.kernel.gate import Gate, GateError
from runtime.kernel.leave import leave_container

CGROUP = "kmesh-gate"
_START_SECONDS = 30
_UNNOTED = (
    "the gate's maps cannot be noted: %s; the next daemon starts a gate anew, which takes over"
)

_log = log.get("launch")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePlace:
    """Where a gate lives.

    Attributes:
        program: the binary.
        socket: its control socket.
        log: what it says goes there.
        cgroup: its own cgroup, made when it is not there.
    """

    program: Path
    socket: Path
    log: Path
    cgroup: Path

    @property
    def beside(self) -> Path:
        """The control socket of one that runs beside another until it succeeds that."""
        return self.socket.with_name(f"{self.socket.name}.next")

    @classmethod
    def at(cls, rundir: Path, program: Path) -> GatePlace:
        """The usual one, below the daemon's run directory."""
        name = CGROUP if rundir == RUN_DIR else f"{CGROUP}-{_short(rundir)}"
        return cls(
            program=program,
            socket=rundir / "gate.sock",
            log=rundir / "gate.log",
            cgroup=cgroup2_root() / name,
        )


def _short(rundir: Path) -> str:
    """A name for a run directory: two daemons of one host, for tests, have a gate each."""
    return blake2b(os.fsencode(rundir), digest_size=4).hexdigest()


def running(place: GatePlace) -> int | None:
    """The process id of the gate that answers there."""
    try:
        with Gate(place.socket) as gate:
            return gate.status()["pid"]
    except GateError:
        return None


def _is_current(pid: int, program: Path) -> bool:
    """Whether a process runs this very file, and not one that was replaced since."""
    try:
        return Path(f"/proc/{pid}/exe").samefile(program)
    except OSError:
        return False


def ensure_gate(path: DataPath, place: GatePlace) -> int:
    """Have this version's gate run: adopt it, or start it, which takes over from another's.

    Args:
        path: the enhanced data path, open.
        place: where the gate lives.

    Returns:
        its process id.

    Raises:
        KmeshError: it does not start.
    """
    place.cgroup.mkdir(exist_ok=True)
    path.enroll_gate(place.cgroup)
    _settle_beside(path, place)
    pid = running(place)
    if pid is not None and _is_current(pid, place.program) and _has_maps(place.socket, path):
        return pid
    return start_gate(path, place)


def _note(socket: Path) -> Path:
    return socket.with_suffix(".maps")


def _write_note(socket: Path, path: DataPath) -> None:
    """Without it a gate serves all the same."""
    try:
        _note(socket).write_text(str(path.tables), encoding="utf-8")
    except OSError as error:
        _log.warning(_UNNOTED, error)


def _has_maps(socket: Path, path: DataPath) -> bool:
    """Whether the gate that runs was started with the maps that are in force."""
    with suppress(OSError):
        return _note(socket).read_text(encoding="utf-8") == str(path.tables)
    return False


def _settle_beside(path: DataPath, place: GatePlace) -> None:
    """A daemon was killed that had started a gate beside another: it takes its place if people are sent to it.

    One that cannot is ended: two gates of the same maps would each give the same numbers.
    """
    if _has_maps(place.beside, path):
        with suppress(GateError):
            succeed(place)
            return
    with suppress(GateError), Gate(place.beside) as gate:
        gate.stop()
    for file in (_note(place.beside), place.beside):
        with suppress(OSError):
            file.unlink()


def other_maps_run(path: DataPath, place: GatePlace) -> int | None:
    """The process id of a gate that serves by the maps of another layout, which are in force still."""
    if not path.must_turn_over or _has_maps(place.socket, path):
        return None
    return running(place)


def start_gate(path: DataPath, place: GatePlace) -> int:
    """Start a gate; one that runs hands over to it.

    Raises:
        KmeshError: it ended, or was not ready in time.
    """
    pid = _start(path, place)
    _write_note(place.socket, path)
    return pid


def start_beside(path: DataPath, place: GatePlace) -> int:
    """Start a gate beside one that has other maps; each serves who is sent to it, until `succeed`.

    Raises:
        KmeshError: it ended, or was not ready in time.
    """
    path.enroll_gate(place.cgroup)
    pid = _start(path, place, str(place.beside))
    _write_note(place.beside, path)
    return pid


def succeed(place: GatePlace) -> None:
    """Nobody is sent to the other any more: what it still has comes to its end there.

    Raises:
        GateError: the gate beside it does not take its place.
    """
    with Gate(place.beside) as gate:
        gate.succeed()
    try:
        _note(place.beside).rename(_note(place.socket))
    except OSError as error:
        _log.warning(_UNNOTED, error)


def _start(path: DataPath, place: GatePlace, *more: str) -> int:
    try:
        return _begin(path, place, *more)
    except OSError as error:
        raise KmeshError(f"the gate did not start: {error}") from error


def _begin(path: DataPath, place: GatePlace, *more: str) -> int:
    with place.log.open("ab") as said:
        process = subprocess.Popen(
            [str(place.program), str(path.tables), str(place.socket), *more],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        try:
            leave_container(process.pid, place.cgroup)
            _wait_until_ready(process, place)
        except BaseException:
            process.kill()
            process.wait()
            raise
    return process.pid


def _wait_until_ready(process: subprocess.Popen[bytes], place: GatePlace) -> None:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if selector.select(_START_SECONDS) and process.stdout.readline() == b"ready\n":
            return
    raise KmeshError(f"the gate did not start; it says: {_last_words(place)}")


def _last_words(place: GatePlace) -> str:
    lines = place.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "nothing"


def stop_gate(path: DataPath, place: GatePlace, *, seconds: float = 10) -> None:
    """End the gate, and with it what goes by it. Idempotent."""
    end_gate(place, seconds=seconds)
    path.release_gate(place.cgroup)
    with suppress(OSError):
        place.cgroup.rmdir()


def end_gate(place: GatePlace, *, seconds: float = 10) -> bool:
    """End a gate of which nothing else is known, one that does not answer too; whether there was any."""
    pid = running(place)
    if pid is not None:
        with suppress(GateError), Gate(place.socket) as gate:
            gate.stop()
        end = time.monotonic() + seconds
        while _in_cgroup(place) and time.monotonic() < end:
            _reap(pid)
            time.sleep(0.01)
    left = _in_cgroup(place)
    for each in left:
        with suppress(ProcessLookupError):
            os.kill(int(each), signal.SIGKILL)
    end = time.monotonic() + seconds
    while _in_cgroup(place) and time.monotonic() < end:
        for each in left:
            _reap(int(each))
        time.sleep(0.01)
    for socket in (place.socket, place.beside):
        for file in (_note(socket), socket, Path(f"{socket}.log")):
            file.unlink(missing_ok=True)
    with suppress(OSError):
        place.cgroup.rmdir()
    return pid is not None or bool(left)


def _reap(pid: int) -> None:
    """A child's end is seen only when it is asked for; another's child is none of ours."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _in_cgroup(place: GatePlace) -> list[str]:
    try:
        return (place.cgroup / "cgroup.procs").read_text(encoding="ascii").split()
    except OSError:
        return []


__all__ = [
    "GatePlace", "end_gate", "ensure_gate", "other_maps_run", "running", "start_beside", "start_gate", "stop_gate",
    "succeed",
]  # fmt: skip
