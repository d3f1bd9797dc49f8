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
from ci.matrix.plan import boots, stages, unexpected_skips
from ci.matrix.select import ALL, Selection
from runtime.errors import KmeshError
from runtime.probe.report import Report

Row = dict[str, Any]
_SECONDS = {"quick": 1400.0, "full": 4500.0}  # of one boot


def measure(
    kernel: Kernel,
    *,
    suite: str,
    objects: Path,
    depth: str,
    accelerator: str = "tcg",
    also: Sequence[str] = (),
    disk: Path | None = None,
    take: Selection = ALL,
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
        take: which stages to carry out, and what the others told before.

    Returns:
        the row; "failures" in it is empty where all was as it should be.

    Raises:
        KmeshError: the kernel did not come to the end.
    """
    told = []
    for words in boots(depth, also=also, only=take):
        told += _told(
            kernel,
            words,
            timeout=_SECONDS[depth],
            accelerator=accelerator,
            disk=disk if set(also) & set(words) else None,
        )
    with tempfile.TemporaryDirectory(prefix="kmesh-offline-") as scratch:
        offline = judge_offline(kernel, objects=objects, scratch=Path(scratch))
    listed = [*stages(depth), *also]
    old = [each for each in take.told if each["stage"] in listed]
    row = _row(combined(old, told, order=listed), offline=offline)
    row = {"suite": suite, "release": kernel.release, "depth": depth, **row}
    return {**row, "failures": failures(row)}


def _told(kernel: Kernel, words: Sequence[str], **how: Any) -> list[Row]:
    """What the stages of a boot printed; what ended it, of those that it did not come to."""
    told: list[Row] = []
    try:
        outcome = inside(kernel, words, **how)
        told, why = _lines(outcome), _last_words(outcome)
    except KmeshError as error:
        why = str(error)
    for each in told:
        print(f"{kernel.release}: {_in_words(each)}", flush=True)
    done = {each["stage"] for each in told}
    return [*told, *({"stage": word, "error": why} for word in words if word not in done)]


def _in_words(told: Mapping[str, Any]) -> str:
    passed = f"{told['passed']} passed, " if "passed" in told else ""
    wrong = [*told.get("failed", ()), *told.get("complaints", ())]
    lines = [f"{told['stage']}: {passed}{told['seconds']} s", *wrong]
    return "\n  ".join(lines)


def combined(old: Sequence[Row], new: Sequence[Row], *, order: Sequence[str]) -> list[Row]:
    """What stages told, the latest of each; of one boot after the other the first time that the prober was asked."""
    latest = {each["stage"]: each for each in [*old, *reversed(new)]}
    return [latest[stage] for stage in order if stage in latest]


def _row(told: Sequence[Row], *, offline: Report) -> Row:
    live = _stage(told, "probe")["report"]
    agreed = agreement(offline, live)
    return {
        "version": live["kernel"]["upstream_version"],
        "mode": live["mode"]["mode"],
        "kernel_mode": live["mode"]["kernel_mode"],
        "verdicts": {each["capability"]: each["verdict"] for each in live["findings"]},
        "offline": {"decided": agreed.decided, "differences": list(agreed.differences)},
        "served": _stage(told, "serve"),
        "tests": _stages(told, "tests="),
        "update": _stages(told, "update-"),
        "degraded": _stages(told, "degrade="),
        "told": list(told),
    }


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
    told = _lines(outcome)
    for each in told:
        if "error" in each:
            raise KmeshError(f"stage {each['stage']} failed in the guest:\n{each['error']}")
    if outcome.status != 0 or not told:
        raise KmeshError(_last_words(outcome))
    return told


def _lines(outcome: Outcome) -> list[Row]:
    return [json.loads(line) for line in outcome.output.splitlines() if line.startswith("{")]


def _last_words(outcome: Outcome) -> str:
    tail = "\n".join(outcome.console.splitlines()[-15:])
    return f"the guest ended with status {outcome.status}; it said last:\n{tail}"


def _stage(told: Sequence[Row], name: str) -> Row:
    """What a stage told without which there is no row.

    Raises:
        KmeshError: it failed.
    """
    found = next(each for each in told if each["stage"] == name)
    if "error" in found:
        raise KmeshError(f"stage {name} failed in the guest:\n{found['error']}")
    return found


def _stages(told: Sequence[Row], start: str) -> list[Row]:
    """What those told that came to their end."""
    return [each for each in told if each["stage"].startswith(start) and "error" not in each]


def failures(row: Mapping[str, Any]) -> list[str]:
    """Everything in a row that is not as it should be, a line each."""
    served, found = row["served"], []
    found += [f"offline verdict differs: {line}" for line in row["offline"]["differences"]]
    if served["mode"] != row["mode"]:
        found.append(f"kmesh run chose {served['mode']}, the prober {row['mode']}")
    if set(served["answers"]) != {"blue", "green"} or served["status"] or served.get("left"):
        found.append(f"kmesh run did not serve well: {served}")
    for suite in row["tests"]:
        found += [f"{name} failed" for name in suite["failed"]]
        found += [suite["tail"]] if suite["failed"] else []
        unexpected = unexpected_skips(suite["skipped"], row["suite"])
        found += [f"{number} tests skipped: {why}" for why, number in unexpected.items()]
    found += [f"{each['stage']}: {each['error']}" for each in row["told"] if "error" in each]
    for scenario in row["degraded"]:
        found += [f"{scenario['scenario']}: {line}" for line in scenario["complaints"]]
    return found
