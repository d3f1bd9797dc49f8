# SPDX-License-Identifier: Apache-2.0
"""Envoy as a process: in a session and a cgroup of its own, so that it outlives the daemon; found again by a note."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime.errors import KmeshError
from runtime.kernel.leave import leave_version_1
from runtime.waypoint import confine
from runtime.waypoint.place import Place

_MOST_LOG = 16 << 20  # bytes; an access log that Istio asks for goes there too
_PATIENCE = 5.0  # seconds between asking it to end and ending it
_ROOM = 64 << 20  # bytes beside the heap, for the program and its stacks


class EnvoyProcess:
    """The one process.

    Args:
        place: where it lives.
        bootstrap: what it is started with.
        heap: bytes that its heap may take.
        workers: its threads.
    """

    def __init__(self, place: Place, *, bootstrap: str, heap: int, workers: int) -> None:
        self._place = place
        self._bootstrap = bootstrap
        self._heap = heap
        self._workers = workers
        self._lock = threading.Lock()
        self._over = False
        self._child: subprocess.Popen[bytes] | None = None
        self.pid: int | None = None

    def adopt(self) -> bool:
        """Take over the one that an earlier daemon left, if it is what this one would start.

        Another version, or one with another bootstrap, is ended.
        """
        note = self._read_note()
        pid = note.get("pid", 0)
        if not pid or started(pid) != note.get("started"):
            return False
        self.pid = pid
        if note == self._describe(pid):
            return True
        self._end(seconds=_PATIENCE)
        return False

    def start(self) -> None:
        """Start it, unless it is to be ended.

        Raises:
            KmeshError: it cannot be started.
        """
        with self._lock:
            if not self._over:
                self._start()

    def _start(self) -> None:
        place = self._place
        assert place.program is not None
        try:
            self._bound_memory()
            procs = str(place.cgroup / "cgroup.procs") if place.cgroup else ""
            with place.log.open("ab") as log:
                place.give(place.log)
                self._child = subprocess.Popen(
                    [
                        *(sys.executable, "-I", str(Path(confine.__file__))),
                        *(str(place.user), procs, "--", str(place.program)),
                        # As an argument: a file's path it would look up from the root on.
                        *("--config-yaml", self._bootstrap, "--disable-hot-restart"),
                        *("--concurrency", str(self._workers), "--log-level", "warning"),
                    ],
                    cwd=place.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={"PATH": os.defpath},
                )
            self.pid = self._child.pid
            leave_version_1(self.pid)
            place.note.write_text(json.dumps(self._describe(self.pid)), encoding="utf-8")
        except OSError as error:
            raise KmeshError(f"cannot start {place.program}: {error}") from error

    def _bound_memory(self) -> None:
        """By its cgroup too, where that has the controller; its heap is bounded in any case."""
        if self._place.cgroup is not None:
            with suppress(OSError):
                most = self._place.cgroup / "memory.max"
                if most.exists():
                    most.write_text(str(self._heap + _ROOM), encoding="ascii")

    def _describe(self, pid: int) -> dict[str, Any]:
        assert self._place.program is not None
        file = self._place.program.stat()
        return {
            "pid": pid,
            "started": started(pid),
            "program": str(self._place.program),
            "file": [file.st_dev, file.st_ino, file.st_mtime_ns],
            "bootstrap": self._bootstrap,
            "workers": self._workers,
        }

    def _read_note(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            note = json.loads(self._place.note.read_text(encoding="utf-8"))
            if isinstance(note, dict) and isinstance(note.get("pid"), int):
                return note
        return {}

    @property
    def alive(self) -> bool:
        if self.pid is None:
            return False
        if self._child is not None:
            return self._child.poll() is None
        return started(self.pid) is not None

    def how_it_ended(self) -> str:
        """In words, with what it said last."""
        status = self._child.returncode if self._child is not None else None
        if status is not None and status < 0:
            told = f"was ended by {signal.Signals(-status).name}"
        else:
            told = "ended" + (f" with status {status}" if status is not None else "")
        return told + (f"; it said: {words}" if (words := self._last_words()) else "")

    def _last_words(self) -> str:
        with suppress(OSError), self._place.log.open("rb") as file:
            file.seek(max(0, self._place.log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
            said = [line for line in lines if "][error]" in line or "][critical]" in line]
            return said[-1][-300:] if said else ""
        return ""

    def trim_log(self) -> None:
        """Keep its log, and the one before, bounded: what is appended goes on at the new end."""
        with suppress(OSError):
            log = self._place.log
            if log.stat().st_size > _MOST_LOG:
                log.with_suffix(".log.1").write_bytes(log.read_bytes()[-_MOST_LOG:])
                os.truncate(log, 0)

    def stop(self, *, seconds: float = _PATIENCE) -> None:
        """End it for good, whoever started it, and wait for its end. Idempotent."""
        with self._lock:
            self._over = True
            if self.pid is None:
                self._find()
            self._end(seconds=seconds)

    def _end(self, *, seconds: float) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.alive:
                break
            assert self.pid is not None
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
            end = time.monotonic() + seconds
            while self.alive and time.monotonic() < end:
                time.sleep(0.01)
        if self.alive:
            raise KmeshError(f"the waypoint's Envoy (process {self.pid}) does not end")
        self.pid, self._child = None, None
        with suppress(OSError):
            self._place.note.unlink(missing_ok=True)

    def _find(self) -> None:
        """One that an earlier daemon left, whatever it is."""
        note = self._read_note()
        pid = note.get("pid", 0)
        if pid and started(pid) == note.get("started"):
            self.pid = pid


def write_bootstrap(place: Place, text: str) -> None:
    """Lay down what Envoy is to be started with; it is Envoy's user's to read."""
    draft = place.bootstrap.with_suffix(".new")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o600)
    place.give(draft)
    draft.replace(place.bootstrap)


def started(pid: int) -> int | None:
    """When a process was started, in ticks since boot: with its number it is never another; None: it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
