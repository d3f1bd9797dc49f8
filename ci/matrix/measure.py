# SPDX-License-Identifier: Apache-2.0
"""One kernel of the matrix: boot it, try everything, and make a row of what came of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.kernels.debian import Kernel
from ci.matrix.agree import agreement, judge_offline
from ci.matrix.boot import Outcome, boot
from ci.matrix.plan import stages, unexpected_skips
from runtime.errors import KmeshError

Row = dict[str, Any]
_SECONDS = {"quick": 1400.0, "full": 5400.0}


def measure(
    kernel: Kernel,
    *,
    suite: str,
    objects: Path,
    depth: str,
    accelerator: str = "tcg",
    also: Sequence[str] = (),
    disk: Path | None = None,
) -> Row:
    """Boot a kernel and try everything on it.

    Args:
        kernel: what to boot.
        suite: the distribution's suite that it is from.
        objects: the compiled objects, as they are in the guest too.
        depth: quick or full.
        accelerator: QEMU's.
        also: stages of an update, whose words are in "update" of the row.
        disk: what an earlier boot left, for those.

    Returns:
        the row; "failures" in it is empty where all was as it should be.

    Raises:
        KmeshError: the kernel did not come to the end.
    """
    with tempfile.TemporaryDirectory(prefix="kmesh-offline-") as scratch:
        offline = judge_offline(kernel, objects=objects, scratch=Path(scratch))
    outcome = inside(
        kernel,
        stages(depth, also=also),
        timeout=_SECONDS[depth],
        accelerator=accelerator,
        disk=disk,
    )
    told = parse(outcome)
    live = _stage(told, "probe")["report"]
    agreed = agreement(offline, live)
    row: Row = {
        "suite": suite,
        "release": kernel.release,
        "depth": depth,
        "version": live["kernel"]["upstream_version"],
        "mode": live["mode"]["mode"],
        "kernel_mode": live["mode"]["kernel_mode"],
        "verdicts": {each["capability"]: each["verdict"] for each in live["findings"]},
        "offline": {"decided": agreed.decided, "differences": list(agreed.differences)},
        "served": _stage(told, "serve"),
        "tests": [each for each in told if each["stage"].startswith("tests=")],
        "update": [each for each in told if each["stage"].startswith("update-")],
        "degraded": [each for each in told if each["stage"].startswith("degrade=")],
    }
    return {**row, "failures": failures(row)}


def inside(
    kernel: Kernel,
    words: Sequence[str],
    *,
    timeout: float,
    accelerator: str = "tcg",
    disk: Path | None = None,
    extra: Sequence[Path] = (),
) -> Outcome:
    """Boot a kernel and run stages in it; see `boot` for the arguments."""
    command = f"python3 -m ci.matrix.inside {' '.join(words)}\n"
    return boot(kernel, command, timeout=timeout, accelerator=accelerator, disk=disk, extra=extra)


def parse(outcome: Outcome) -> list[Row]:
    """What the stages printed, a line each.

    Raises:
        KmeshError: one ended by an exception, which the message has.
    """
    told: list[Row] = [
        json.loads(line) for line in outcome.output.splitlines() if line.startswith("{")
    ]
    for each in told:
        if "error" in each:
            raise KmeshError(f"stage {each['stage']} failed in the guest:\n{each['error']}")
    if outcome.status != 0 or not told:
        tail = "\n".join(outcome.console.splitlines()[-15:])
        raise KmeshError(f"the guest ended with status {outcome.status}; it said last:\n{tail}")
    return told


def _stage(told: Sequence[Row], name: str) -> Row:
    return next(each for each in told if each["stage"].split("=")[0] == name)


def failures(row: Mapping[str, Any]) -> list[str]:
    """Everything in a row that is not as it should be, a line each."""
    served, found = row["served"], []
    found += [f"offline verdict differs: {line}" for line in row["offline"]["differences"]]
    if served["mode"] != row["mode"]:
        found.append(f"kmesh run chose {served['mode']}, the prober {row['mode']}")
    if set(served["answers"]) != {"blue", "green"} or served["status"] or served.get("left"):
        found.append(f"kmesh run did not serve well: {served}")
    for suite in row["tests"]:
        found += [f"{name} failed: {suite['tail']}" for name in suite["failed"]]
        unexpected = unexpected_skips(suite["skipped"], row["suite"])
        found += [f"{number} tests skipped: {why}" for why, number in unexpected.items()]
    for scenario in row["degraded"]:
        found += [f"{scenario['scenario']}: {line}" for line in scenario["complaints"]]
    return found
