# SPDX-License-Identifier: Apache-2.0
"""How long `make docker` takes where nothing has changed: what all the keys and caches are for."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from ci.bench.measure import Result, median_row
from ci.same import same

AIM = 60.0


def _build() -> dict[str, Any]:
    argv = [sys.executable, "-m", "builder.cli", "images", "--tag", "bench", "--output", "json"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def measure(*, rounds: int) -> Result:
    """Build the images once, then again and again; see `ci.bench`."""
    first = _build()
    runs = []
    for _ in range(rounds):
        again = _build()
        same(first, again)
        runs.append({"seconds": float(again["seconds"])})
    row: dict[str, Any] = {"what": "make docker, again"}
    return Result(
        "images", "building what is there", [row | median_row(runs) | {"aim_seconds": AIM}]
    )
