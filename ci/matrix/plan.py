# SPDX-License-Identifier: Apache-2.0
"""What is tried on each kernel: the suites of suites.list, and the poorer hosts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.kernels.debian import Wanted
from ci.matrix.inside.scenarios import SCENARIOS
from runtime.errors import KmeshError

LIST = Path(__file__).with_name("suites.list")
# Those that `make test` has time for, on each kernel that it boots.
QUICK_SCENARIOS = ("no-btf", "without-bpf-sys-admin", "cgroup-v1", "small-memlock", "lockdown")


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests of one path; `depth` is quick or full."""

    path: str
    depth: str
    tests: tuple[str, ...]


def suites(depth: str, *, path: Path = LIST) -> list[Suite]:
    """The suites of a depth, in the order of the list."""
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    found = [Suite(line[0], line[1], tuple(line[2:])) for line in lines if line]
    return [suite for suite in found if suite.depth == depth]


def stages(depth: str, *, also: Sequence[str] = ()) -> list[str]:
    """The words for `python -m ci.matrix.inside` that try everything on one kernel.

    Args:
        depth: quick or full.
        also: more of them, before the host is made poorer.
    """
    scenarios = (
        QUICK_SCENARIOS
        if depth == "quick"
        else [name for name, one in SCENARIOS.items() if name != "plain" and not one.headers]
    )
    lasting_last = sorted(scenarios, key=lambda name: SCENARIOS[name].lasting)
    return [
        "probe",
        "serve",
        *(f"tests={suite.path},{','.join(suite.tests)}" for suite in suites(depth)),
        *also,
        *(f"degrade={name}" for name in lasting_last),
    ]


def chosen(kernels: Sequence[Wanted], names: Sequence[str]) -> list[Wanted]:
    """The kernels whose suite or packages have one of these words in them; all without words.

    Raises:
        KmeshError: a word fits none.
    """
    for name in names:
        if not any(_fits(kernel, name) for kernel in kernels):
            known = ", ".join(f"{kernel.suite} ({kernel.packages[0]})" for kernel in kernels)
            raise KmeshError(f"no kernel is called {name}", hint=f"there are: {known}")
    return [kernel for kernel in kernels if not names or any(_fits(kernel, name) for name in names)]


def _fits(kernel: Wanted, word: str) -> bool:
    release = re.compile(rf"-{re.escape(word)}(?!\d)")  # 6.1 is not 6.12
    return word in kernel.suite or any(release.search(package) for package in kernel.packages)
