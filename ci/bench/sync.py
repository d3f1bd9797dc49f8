# SPDX-License-Identifier: Apache-2.0
"""Initial sync: from exec of `kmesh run` to a whole mesh in the kernel, with nothing there before.

Seconds of the clock depend on who else runs; processor seconds of the daemon and of the children
that it waited for less so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ci.bench.measure import Result, median_row
from ci.bench.stage import Stage, end

SIZES = ((5_000, 2, 2.0, 120), (10_000, 10, 5.0, 400))
_TICKS = os.sysconf("SC_CLK_TCK")
# The milestones of the log, in their order; a phase ends with each.
_PHASES = {
    "options InitDaemonConfig successful": "start",
    "probed kernel": "probe",
    "bpf Start successful": "load",
    "first sync": "receive",
    "controller Start successful": "program",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One start: seconds since exec at each milestone, and what it took up to the last."""

    reached: dict[str, float]
    processor_seconds: float
    peak_mib: float

    @property
    def seconds(self) -> float:
        return self.reached["program"]


def _used(pid: int) -> tuple[float, float]:
    """Processor seconds of a process and its ended children, and its peak of memory in MiB."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return sum(map(int, ticks)) / _TICKS, int(peak.split()[1]) / 1024


def _start(stage: Stage, scratch: Path) -> Run:
    """Start a daemon, follow its log up to the last milestone, and end it."""
    env = {"KMESH_RUN_DIR": str(scratch / "run"), "KMESH_PINS": str(stage.pins)}
    argv = [sys.executable, "-m", "runtime.cli.main", "run", "--source", "istiod:127.0.0.1:15010"]
    began = time.monotonic()
    daemon = stage.start(argv, env=env, stderr=subprocess.PIPE)
    reached: dict[str, float] = {}
    told = []
    try:
        assert daemon.stderr is not None
        for line in daemon.stderr:
            told.append(line)
            for milestone, phase in _PHASES.items():
                if milestone in line:
                    reached[phase] = time.monotonic() - began
            if "program" in reached:
                return Run(reached, *_used(daemon.pid))
    finally:
        end(daemon)
    raise RuntimeError(f"the daemon ended before it was in sync:\n{''.join(told)}")


def _measure_size(stage: Stage, services: int, endpoints: int, *, rounds: int) -> list[Run]:
    argv = [sys.executable, "-m", "ci.bench.control_plane", str(services), str(endpoints)]
    control_plane = stage.start(argv, stdout=subprocess.PIPE)
    try:
        assert control_plane.stdout is not None
        control_plane.stdout.readline()
        runs = []
        for number in range(rounds):
            scratch = stage.path / f"{services}-{number}"  # no verdicts kept from the run before
            scratch.mkdir()
            runs.append(_start(stage, scratch))
        return runs
    finally:
        end(control_plane)


def measure(*, rounds: int) -> Result:
    """Start daemons on empty nodes; see `ci.bench`."""
    rows = []
    with Stage() as stage:
        for services, endpoints, seconds, mib in SIZES:
            runs = _measure_size(stage, services, endpoints, rounds=rounds)
            row = median_row(
                [
                    {
                        "seconds": run.seconds,
                        "cpu": run.processor_seconds,
                        "peak_mib": run.peak_mib,
                        **{f"at_{phase}": at for phase, at in run.reached.items()},
                    }
                    for run in runs
                ]
            )
            rows.append(
                {"what": f"{services} services x {endpoints}"}
                | row
                | {"aim_seconds": seconds, "aim_mib": mib}
            )
    return Result("sync", "initial sync, from exec to programmed", rows)
