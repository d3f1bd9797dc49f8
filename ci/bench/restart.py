# SPDX-License-Identifier: Apache-2.0
"""A killed daemon's successor: until what vanished meanwhile is gone, and what is new is there.

A daemon that holds 5,000 services is killed with SIGKILL under load. While there is none, all but a
few services vanish, those that stay get other endpoints, and new ones come. Its successor adopts the
tables. Two times count from exec: when it has its first whole picture, and when its programs run; the
two happen beside each other. From the later one count: when a new service can be connected to, and
when nothing of the vanished ones is left.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ci.bench.control_plane import PORT, service_address
from ci.bench.measure import Result, median_row
from ci.bench.stage import Stage, end
from runtime.bpf.maps import BpfMap
from runtime.tables.endpoints import pack_address
from runtime.tables.layout import DIGEST, FrontendKey

_MANY, _ENDPOINTS = 5_000, 2
_STAY, _NEW = 20, 20
_AIM_SECONDS = 2.0
_FIRST_LEFT = _MANY - _STAY
_OTHER_PODS = 100_000  # from this number on: the endpoints that stand for those of before


class _Watch:
    """Looks for a service's address in the kernel until it is there."""

    def __init__(self, pins: Path, number: int) -> None:
        address = pack_address(service_address(number))
        self._key = FrontendKey(address, (80).to_bytes(2, "big"), 6).pack()
        self._pin = pins / "compat" / DIGEST[:16] / "frontends"
        self.seen: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        table = BpfMap.pinned(self._pin)
        try:
            while not self._ended.is_set():
                if table.lookup(self._key) is not None:
                    self.seen = time.monotonic()
                    return
                time.sleep(0.001)
        finally:
            table.close()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def _frontends(pins: Path) -> int:
    table = BpfMap.pinned(pins / "compat" / DIGEST[:16] / "frontends")
    try:
        return sum(1 for _ in table.items())
    finally:
        table.close()


def _control_plane(stage: Stage, *sizes: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "ci.bench.control_plane", *map(str, sizes)]
    process = stage.start(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _daemon(stage: Stage, scratch: Path) -> subprocess.Popen[str]:
    env = {"KMESH_RUN_DIR": str(scratch / "run"), "KMESH_PINS": str(stage.pins)}
    source = f"istiod:127.0.0.1:{PORT}"
    argv = [sys.executable, "-m", "runtime.cli.main", "run", "--source", source]
    return stage.start(argv, env=env, stderr=subprocess.PIPE)


def _follow(daemon: subprocess.Popen[str], until: str) -> dict[str, float]:
    """When the log said what, up to a milestone; the rest is read and let go."""
    assert daemon.stderr is not None
    seen: dict[str, float] = {}
    told = []
    for line in daemon.stderr:
        told.append(line)
        for milestone in ("bpf Start successful", "first sync", "controller Start successful"):
            if milestone in line:
                seen.setdefault(milestone, time.monotonic())
        if until in line:
            threading.Thread(target=daemon.stderr.read, daemon=True).start()
            return seen
    raise RuntimeError(f"the daemon ended:\n{''.join(told)}")


def _once(stage: Stage, scratch: Path) -> dict[str, float]:
    scratch.mkdir()
    control_plane = _control_plane(stage, _MANY, _ENDPOINTS)
    daemon = _daemon(stage, scratch)
    _follow(daemon, "controller Start successful")
    assert _frontends(stage.pins) == _MANY
    daemon.kill()
    daemon.wait()
    end(control_plane)
    control_plane = _control_plane(stage, _STAY + _NEW, _ENDPOINTS, _FIRST_LEFT, _OTHER_PODS)
    watch = _Watch(stage.pins, _MANY + _NEW - 1)
    try:
        began = time.monotonic()
        daemon = _daemon(stage, scratch)
        seen = _follow(daemon, "controller Start successful")
        left = _frontends(stage.pins)
    finally:
        watch.end()
        end(daemon)
        end(control_plane)
    if left != _STAY + _NEW or watch.seen is None:
        raise RuntimeError(f"{left} service ports are left, {_STAY + _NEW} should be")
    synced, path_ready = seen["first sync"], seen["bpf Start successful"]
    could = max(synced, path_ready)
    return {
        "first_sync": synced - began,
        "path_ready": path_ready - began,
        "new_service": max(watch.seen - could, 0.0),
        "vanished_gone": seen["controller Start successful"] - could,
    }


def measure(*, rounds: int) -> Result:
    """Kill and start again; see `ci.bench`."""
    with Stage() as stage:
        row: dict[str, Any] = median_row(
            [_once(stage, stage.path / f"restart-{number}") for number in range(rounds)]
        )
    row = {"what": f"{_MANY} services, {_FIRST_LEFT} vanish while killed", **row}
    return Result(
        "restart",
        "kill -9 and restart, seconds (the last two after both others)",
        [{**row, "aim_seconds": _AIM_SECONDS}],
    )
