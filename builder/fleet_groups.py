# SPDX-License-Identifier: Apache-2.0
"""Kinds of kernels, and those that run the same for want of the same: a line of the fleet's table each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.probe.mode import PATHS, explain, failing
from runtime.probe.report import Report
from runtime.probe.verdict import Finding

RANK: Mapping[str, int] = {"none": 0, "compat": 1, "enhanced": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One kind of kernel and the nodes that have it; `problem` where it could not be judged."""

    release: str
    nodes: tuple[str, ...]
    report: Report | None
    problem: str = ""

    @property
    def mode(self) -> str:
        return self.report.mode.mode if self.report else "unknown"

    @property
    def kernel_mode(self) -> str:
        return self.report.mode.kernel_mode if self.report else "-"

    @property
    def lacks(self) -> tuple[Finding, ...]:
        """What keeps it from better modes, each capability once."""
        if self.report is None:
            return ()
        findings = self.report.findings
        better = (path for path in PATHS if RANK[path] > RANK[self.mode])
        found = (finding for path in better for finding in failing(findings, path))
        return tuple({finding.capability: finding for finding in found}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Kernels that run the same mode and lack the same.

    Attributes:
        mode: what they run with the objects of this build.
        kernel_mode: what they could run by themselves.
        lacking: names of capabilities.
        why: an example for each reason that one of them gives.
        releases: of the kernels, those of most nodes first.
        nodes: their names.
    """

    mode: str
    kernel_mode: str
    lacking: tuple[str, ...]
    why: tuple[str, ...]
    releases: tuple[str, ...]
    nodes: tuple[str, ...]


def grouped(kernels: Iterable[Judged]) -> tuple[Group, ...]:
    """Group kernels by mode and by what they lack; the worst mode first, then the largest group."""
    found: defaultdict[tuple[str, str, tuple[str, ...], str], list[Judged]] = defaultdict(list)
    for kernel in kernels:
        lacking = tuple(sorted(finding.capability for finding in kernel.lacks))
        found[kernel.mode, kernel.kernel_mode, lacking, kernel.problem].append(kernel)
    groups = [_group(kinds) for kinds in found.values()]
    return tuple(
        sorted(groups, key=lambda one: (RANK.get(one.mode, -1), -len(one.nodes), one.lacking))
    )


def _group(kinds: list[Judged]) -> Group:
    first = kinds[0]
    sizes: Counter[str] = Counter()
    for kind in kinds:
        sizes[kind.release] += len(kind.nodes)
    return Group(
        mode=first.mode,
        kernel_mode=first.kernel_mode,
        lacking=tuple(sorted(finding.capability for finding in first.lacks)),
        why=(first.problem,) if first.problem else tuple(dict.fromkeys(map(explain, first.lacks))),
        releases=tuple(release for release, _ in sizes.most_common()),
        nodes=tuple(node for kind in kinds for node in kind.nodes),
    )


def folded(names: Iterable[str]) -> list[str]:
    """Names of capabilities, those of one kind of one path as one: "programs.compat.* (5)"."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        kinds[name.rpartition(".")[0] if name.count(".") > 1 else name].append(name)
    return [
        found[0] if len(found) == 1 else f"{kind}.* ({len(found)})" for kind, found in kinds.items()
    ]
