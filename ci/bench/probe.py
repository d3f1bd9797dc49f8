# SPDX-License-Identifier: Apache-2.0
"""How long the prober takes, from exec to its end: at the first start on a host, and at a later one.

A later one knows what the objects need, for they have not changed; no verdict is kept for it here.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.bench.measure import Result, median_row

_DECIDED = (0, 3)  # 3: this kernel runs neither path


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run it.

    Attributes:
        removed: what is removed from its directory before each run (a pattern).
    """

    what: str
    options: Sequence[str]
    removed: str
    aim: float


_CASES = (
    Case("in full, first start", (), "*", 1.0),
    Case("in full, later start", (), "probe-*", 1.0),
    Case("--quick, first start", ("--quick",), "*", 0.3),
    Case("--quick, later start", ("--quick",), "probe-*", 0.3),
)


def _run(case: Case, kept: Path) -> dict[str, float]:
    for path in kept.glob(case.removed):
        path.unlink()
    objects = ["--objects", str(Path("build") / "bpf")]
    argv = [sys.executable, "-m", "runtime.cli.main", "probe", "--output", "json", *objects]
    environment = {**os.environ, "KMESH_RUN_DIR": str(kept)}
    began, used = time.monotonic(), _processor_seconds()
    done = subprocess.run(
        [*argv, *case.options], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - began
    if done.returncode not in _DECIDED:
        raise RuntimeError(f"the prober ended with status {done.returncode}: {done.stderr}")
    probing = json.loads(done.stdout)["duration_ms"] / 1000
    return {"seconds": seconds, "cpu": _processor_seconds() - used, "probing": probing}


def _processor_seconds() -> float:
    """Of children that were waited for: what a busy machine does not change much."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(*, rounds: int) -> Result:
    """Run the prober in all ways, in turns; see `ci.bench`."""
    runs: dict[str, list[dict[str, float]]] = {case.what: [] for case in _CASES}
    with tempfile.TemporaryDirectory() as kept:
        _run(_CASES[0], Path(kept))  # byte code, and pages of files
        for _ in range(rounds):
            for case in _CASES:
                runs[case.what].append(_run(case, Path(kept)))
    rows = [
        {"what": case.what} | median_row(runs[case.what]) | {"aim_seconds": case.aim}
        for case in _CASES
    ]
    return Result("probe", "the prober, from exec to its end", rows)
