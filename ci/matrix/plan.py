# SPDX-License-Identifier: Apache-2.0
"""What is tried on each kernel: the suites of suites.list, and the poorer hosts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.kernels.debian import Wanted
from ci.matrix.inside.scenarios import SCENARIOS
from runtime.errors import KmeshError

_CHECKOUT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("suites.list")
SKIPS = Path(__file__).with_name("skips.list")
# Those that `make test` has time for, on each kernel that it boots.
QUICK_SCENARIOS = ("no-btf", "without-bpf-sys-admin", "cgroup-v1", "small-memlock", "lockdown")


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests of one path; `depth` is quick or full."""

    path: str
    depth: str
    tests: tuple[str, ...]


def suites(depth: str, *, path: Path = LIST) -> list[Suite]:
    """The suites of a depth, in the order of the list.

    Raises:
        KmeshError: what is listed is not there.
    """
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    found = [Suite(line[0], line[1], tuple(_files(line[2:]))) for line in lines if line]
    return [suite for suite in found if suite.depth == depth]


def _files(patterns: Sequence[str]) -> Iterator[str]:
    for pattern in patterns:
        found = sorted(_CHECKOUT.glob(pattern))
        if not found:
            raise KmeshError(f"no {pattern} in this checkout", hint=f"correct {LIST.name}")
        yield from (str(each.relative_to(_CHECKOUT)) for each in found)


def unexpected_skips(
    skipped: Mapping[str, int], suite: str, *, path: Path = SKIPS
) -> dict[str, int]:
    """The skipped tests that no line of skips.list allows on the kernel of a distribution's suite."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    allowed = [line.partition(" ") for line in lines if line]
    starts = tuple(reason.strip() for kernel, _, reason in allowed if kernel == suite)
    return {why: number for why, number in skipped.items() if not why.startswith(starts)}


def stages(depth: str, *, also: Sequence[str] = ()) -> list[str]:
    """The words for `python -m ci.matrix.inside` that try everything on one kernel.

    Args:
        depth: quick or full.
        also: more of them, before the host is made poorer.
    """
    return list(dict.fromkeys(word for part in boots(depth, also=also) for word in part))


def boots(
    depth: str, *, also: Sequence[str] = (), only: Callable[[str], bool] = lambda _stage: True
) -> list[list[str]]:
    """The stages of each boot of one kernel: quick is one, full is one for each path and one for poorer hosts.

    A boot with tests has the prober first, which says whether they are for this kernel.

    Args:
        depth: quick or full.
        also: stages of an update, which belong together.
        only: which to leave in.
    """
    tests: dict[str, list[str]] = {}
    for suite in suites(depth):
        tests.setdefault(suite.path, []).append(f"tests={suite.path},{','.join(suite.tests)}")
    first, *others = tests.values()
    parts = [["probe", "serve", *first, *also], *(["probe", *each] for each in others)]
    parts.append([f"degrade={name}" for name in _scenarios(depth)])
    if depth == "quick":
        parts = [list(dict.fromkeys(word for part in parts for word in part))]
    return [wanted for part in parts if (wanted := _left(part, only))]


def _left(part: Sequence[str], only: Callable[[str], bool]) -> list[str]:
    left = [word for word in part if only(word)]
    tested = any(word.startswith("tests=") for word in left)
    return ["probe", *left] if tested and "probe" not in left else left


def _scenarios(depth: str) -> list[str]:
    """Those of a depth, with what lasts at the end."""
    names = (
        QUICK_SCENARIOS
        if depth == "quick"
        else [name for name, one in SCENARIOS.items() if name != "plain" and not one.headers]
    )
    return sorted(names, key=lambda name: SCENARIOS[name].lasting)


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
