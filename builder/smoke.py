# SPDX-License-Identifier: Apache-2.0
"""Each image is run before it gets its name: what does not even start is not an image.

Containers get no network, a read-only root and no capability that the check does not need.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.engine import Engine, RunOptions, RunResult
from builder.recipes import Recipe
from runtime.errors import KmeshError

# SYS_ADMIN: BPF programs, cgroup and namespace work (Docker 20.10 does not know BPF and PERFMON, which
# newer ones do). DAC_OVERRIDE: the root of cgroup2 has mode 0555, so that even root may not make a
# directory in it without.
CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "DAC_OVERRIDE")
MOUNTS = {"/sys/fs/cgroup": "/sys/fs/cgroup", "/sys/fs/bpf": "/sys/fs/bpf"}
_NOTHING = RunOptions()
# What tells the host's distribution; without, a report from inside an image says nothing about it. An
# engine makes a directory of what is not there.
HOST = {"/etc/os-release": "/host/etc/os-release:ro"} if Path("/etc/os-release").exists() else {}
PROBE = RunOptions(capabilities=CAPABILITIES, mounts={**MOUNTS, **HOST}, host_cgroups=True)
_PROBE_STATUS = (0, 3)  # 3: this kernel runs neither path, which is an answer
_EVERY_IMPORT = Path(__file__).with_name("every_import.py")


@dataclass(frozen=True)
class Check:
    """One command that must end well.

    Attributes:
        command: its arguments; the entrypoint is the image's own where none is given.
        judge: told how it ended, raises what is wrong as ValueError.
    """

    name: str
    command: Sequence[str]
    entrypoint: str | None = None
    options: RunOptions = _NOTHING
    judge: Callable[[RunResult], None] | None = None


def checks(image: Recipe, version: str) -> tuple[Check, ...]:
    """What an image must be able to do."""
    python = "/usr/bin/python3"
    packages = ["runtime"]
    if (
        image.builder
    ):  # protos: what it generates is in the checkout, and its generator is not in the image
        packages += ["builder", "-builder.protos"]
    every = ["-I", "-c", _EVERY_IMPORT.read_text(), *packages]
    found = [Check("imports", every, entrypoint=python)]
    if image.builder:
        command = ["objects", "/tmp/out", "--no-load"]  # noqa: S108 - a tmpfs of the container
        found.append(Check("kmesh-build objects", command))
        found.append(Check("kmesh-build --help", ["--help"]))
    else:
        found.append(Check("kmesh version", ["version"], judge=_tells(version)))
        command = ["probe", "--quick", "--output", "json"]
        found.append(Check("kmesh probe", command, options=PROBE, judge=judge_probe))
    if image.toolchain:
        found.append(Check("clang", ["--version"], entrypoint="/usr/bin/clang"))
        found.append(Check("llvm-strip", ["--version"], entrypoint="/usr/bin/llvm-strip"))
        found.append(Check("bcc", ["-I", "-c", "import bcc"], entrypoint=python))
    return tuple(found)


def smoke_run(engine: Engine, image_id: str, image: Recipe, version: str) -> tuple[str, ...]:
    """Run all checks of an image; returns their names.

    Raises:
        KmeshError: one of them does not end well; with its name and its words.
    """
    done = checks(image, version)
    for check in done:
        _run(engine, image_id, image, check)
    return tuple(check.name for check in done)


def _run(engine: Engine, image_id: str, image: Recipe, check: Check) -> None:
    options = check.options
    if check.entrypoint:
        options = replace(options, entrypoint=check.entrypoint)
    what = f"{check.name} in {image.repository}"
    result = engine.run(image_id, check.command, options=options, what=what)
    try:
        (check.judge or judge_status)(result)
    except ValueError as error:
        said = (result.stderr or result.stdout).strip().splitlines()
        words = f": {said[-1]}" if said else ""
        hint = "nothing was tagged; the image is fit for nothing as it is"
        raise KmeshError(
            f"smoke run of {image.repository}: {check.name} {error}{words}", hint=hint
        ) from error


def judge_status(result: RunResult) -> None:
    """A command must exit 0."""
    if result.status != 0:
        raise ValueError(f"ended with status {result.status}")


def _tells(version: str) -> Callable[[RunResult], None]:
    def judge(result: RunResult) -> None:
        judge_status(result)
        if version not in result.stdout:
            raise ValueError(f"does not tell version {version}")

    return judge


def judge_probe(result: RunResult) -> None:
    """The prober must come to a decision, whatever it is."""
    if result.status not in _PROBE_STATUS:
        raise ValueError(f"ended with status {result.status}")
    read_report(result)


def read_report(result: RunResult) -> dict[str, Any]:
    """The report that the prober printed.

    Raises:
        ValueError: it is none.
    """
    report = json.loads(result.stdout)
    if not isinstance(report, dict) or "mode" not in report.get("mode", {}):
        raise ValueError("prints no report")
    return report


def docker_run_line(reference: str) -> str:
    """The command that does the same by hand."""
    capabilities = " ".join(f"--cap-add {name}" for name in CAPABILITIES)
    mounts = " ".join(f"-v {source}:{target}" for source, target in PROBE.mounts.items())
    return (
        f"docker run --rm --network host --cgroupns host --cap-drop ALL {capabilities} "
        f"{mounts} {reference} probe"
    )


def probe_here(engine: Engine, image_id: str) -> tuple[dict[str, Any], str]:
    """Run an image's prober on this host, in full: its report, and the same for people.

    Raises:
        KmeshError: it prints no report.
    """
    results = [
        engine.run(image_id, ["probe", "--output", form], options=PROBE, what="kmesh probe")
        for form in ("json", "table")
    ]
    try:
        report = read_report(results[0])
    except ValueError as error:
        raise KmeshError(f"the prober prints no report: {results[0].stderr.strip()}") from error
    return report, results[1].stdout
