# SPDX-License-Identifier: Apache-2.0
"""What could be done in a fleet, one thing at a time, and how many nodes that alone moves to a better mode.

A change is tried on the findings themselves: what it mends is taken to be present, and the mode chosen
again, so that what is promised is what would run. Many findings have one cause: where the evidence names
kernel options, those are what is missing, not what each capability's own remedy says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from builder.fleet_groups import RANK, Judged
from runtime.probe.mode import PATHS, choose
from runtime.probe.verdict import Finding, Verdict, deciding

_OPTION = re.compile(r"CONFIG_[A-Z0-9_]+")
# What remedies say to someone who sits at one host.
_AT_A_HOST = re.compile(r"^nothing to do on this host: |; (?:in a container|until then) .*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing to do.

    Attributes:
        what: in so many words.
        lifts: how many nodes it alone moves, by the mode that they then run.
        wanted: how many nodes lack it on the way to a better mode, moved by it alone or not.
    """

    what: str
    lifts: Mapping[str, int]
    wanted: int

    @property
    def nodes(self) -> int:
        return sum(self.lifts.values())


def changes(kernels: Iterable[Judged]) -> tuple[Change, ...]:
    """What could be done: what moves most nodes first, what moves none alone last."""
    judged = [kernel for kernel in kernels if kernel.report]
    found = [*_mendings(judged), *_moves(judged)]
    return tuple(sorted(found, key=lambda each: (-each.nodes, -each.wanted, each.what)))


def causes(finding: Finding) -> frozenset[str]:
    """All that it takes to mend a finding, a remedy each; empty where nothing is known to."""
    decided = deciding(finding)
    if options := _OPTION.findall(decided.summary if decided else ""):
        return frozenset(f"a kernel with {option}=y" for option in options)
    remedy = _AT_A_HOST.sub("", finding.remedy)
    return frozenset({remedy} if remedy else ())


def _mendings(kernels: Sequence[Judged]) -> Iterator[Change]:
    lacking = [(kernel, _causes(kernel)) for kernel in kernels]
    remedies: set[str] = set().union(*(found for _, found in lacking))
    for remedy in sorted(remedies):
        lifts: Counter[str] = Counter()
        wanting = [kernel for kernel, found in lacking if remedy in found]
        for kernel in wanting:
            mode = _with(kernel, remedy)
            if RANK[mode] > RANK[kernel.mode]:
                lifts[mode] += len(kernel.nodes)
        yield Change(
            what=remedy, lifts=dict(lifts), wanted=sum(len(kernel.nodes) for kernel in wanting)
        )


def _causes(kernel: Judged) -> frozenset[str]:
    return frozenset(cause for finding in kernel.lacks for cause in causes(finding))


def _with(kernel: Judged, remedy: str) -> str:
    assert kernel.report is not None
    mended = [
        replace(finding, verdict=Verdict.PRESENT) if causes(finding) == {remedy} else finding
        for finding in kernel.report.findings
    ]
    return choose(mended).mode


def _moves(kernels: Sequence[Judged]) -> Iterator[Change]:
    """Kernels of the fleet that others could be given: of each mode the one that most nodes have."""
    for mode in PATHS:
        best = max(
            (kernel for kernel in kernels if kernel.mode == mode),
            key=lambda kernel: len(kernel.nodes),
            default=None,
        )
        below = sum(len(kernel.nodes) for kernel in kernels if RANK[kernel.mode] < RANK[mode])
        if best and below:
            what = f"the kernel that {best.nodes[0]} runs, {best.release} as it is configured there"
            yield Change(what=what, lifts={mode: below}, wanted=below)
