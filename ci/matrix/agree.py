# SPDX-License-Identifier: Apache-2.0
"""Whether the offline verdict about a kernel is the live one, for all that offline evidence decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.kernels.debian import Kernel
from ci.kernels.image import btf_of
from runtime.probe.report import Report
from runtime.probe.run import probe_offline

_DECIDED = ("present", "absent", "broken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How many capabilities offline evidence decided, and those that the kernel itself contradicts."""

    decided: int
    differences: tuple[str, ...]


def judge_offline(kernel: Kernel, *, objects: Path, scratch: Path) -> Report:
    """Judge a kernel from its image and configuration.

    Args:
        kernel: it is not booted.
        objects: compiled objects.
        scratch: a directory for its BTF.
    """
    btf = scratch / f"{kernel.release}.btf"
    btf.write_bytes(btf_of(kernel.image))
    return probe_offline(btf=btf, config=kernel.config, release=kernel.release, objects=objects)


def agreement(offline: Report, live: Mapping[str, Any]) -> Agreement:
    """Compare.

    Args:
        offline: the report from BTF and configuration.
        live: the report, as JSON, of the kernel when it ran.
    """
    found = {each["capability"]: str(each["verdict"]) for each in live["findings"]}
    decided = {
        each.capability: str(each.verdict) for each in offline.findings if each.verdict in _DECIDED
    }
    differences = tuple(
        f"{name}: offline {verdict}, live {found.get(name, 'nothing found out')}"
        for name, verdict in decided.items()
        if found.get(name) != verdict
    )
    return Agreement(decided=len(decided), differences=differences)
