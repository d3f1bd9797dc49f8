# SPDX-License-Identifier: Apache-2.0
"""A fleet's kernels, judged from their files: which mode each gets, why not better, and what to change.

Nodes with the same evidence are judged once. A change is tried on the findings themselves: what it
mends is taken to be present, and the mode chosen again, so that what is promised is what would run.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.errors import KmeshError
from runtime.probe.cache import Inspections
from runtime.probe.mode import PATHS, choose, needed_by
from runtime.probe.report import Report
from runtime.probe.run import probe_offline
from runtime.probe.verdict import Finding, Verdict

_RANK = {"none": 0, "compat": 1, "enhanced": 2}
_BTF = ("btf", "vmlinux", "vmlinux.btf", "*.btf", "vmlinux-*")
_CONFIG = ("config", "config.gz", "*.config", "config-*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What there is about one node's kernel."""

    node: str
    release: str
    btf: Path | None
    config: Path | None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something to do, and how many nodes it would lift to which mode."""

    what: str
    lifts: dict[str, int]

    @property
    def nodes(self) -> int:
        return sum(self.lifts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    kernels: tuple[Judged, ...]
    changes: tuple[Change, ...]

    @property
    def modes(self) -> Counter[str]:
        """Nodes by mode."""
        counted: Counter[str] = Counter()
        for kernel in self.kernels:
            counted[kernel.mode] += len(kernel.nodes)
        return counted


def find_evidence(directory: Path) -> list[Evidence]:
    """The kernels of a directory: RELEASE.btf with RELEASE.config, or a directory a node.

    A node's directory holds `btf` (or vmlinux), `config` and `release`; what is missing is made up for
    as far as it can be.

    Raises:
        KmeshError: there are none.
    """
    flat = [_flat(path) for path in sorted(directory.glob("*.btf"))]
    nodes = [_node(path) for path in sorted(directory.iterdir()) if path.is_dir()]
    found = [*flat, *(node for node in nodes if node.btf or node.config)]
    if not found:
        raise KmeshError(
            f"no kernels in {directory}",
            hint="RELEASE.btf and RELEASE.config, or a directory a node with btf, config, release",
        )
    return found


def _flat(btf: Path) -> Evidence:
    places = (btf.with_suffix(".config"), btf.with_name(f"config-{btf.stem}"))
    config = next((path for path in places if path.is_file()), None)
    name = btf.name.removesuffix(".btf")
    return Evidence(node=name, release=name, btf=btf, config=config)


def _node(directory: Path) -> Evidence:
    said = directory / "release"
    release = said.read_text(errors="replace").strip() if said.is_file() else directory.name
    return Evidence(
        node=directory.name,
        release=release,
        btf=_first(directory, _BTF),
        config=_first(directory, _CONFIG),
    )


def _first(directory: Path, patterns: Iterable[str]) -> Path | None:
    found = (path for pattern in patterns for path in sorted(directory.glob(pattern)))
    return next((path for path in found if path.is_file()), None)


def judge_fleet(evidence: Sequence[Evidence], *, objects: Path) -> Fleet:
    """Judge every kernel for the objects of this build.

    Args:
        evidence: of all nodes.
        objects: compiled objects.
    """
    same: defaultdict[str, list[Evidence]] = defaultdict(list)
    for each in evidence:
        same[_key(each)].append(each)
    inspections = Inspections(enabled=False)  # of this run alone
    kernels = tuple(_judge(group, objects, inspections) for group in same.values())
    ordered = sorted(kernels, key=lambda one: (_RANK.get(one.mode, -1), one.release))
    return Fleet(kernels=tuple(ordered), changes=tuple(_changes(ordered)))


def _key(evidence: Evidence) -> str:
    digest = hashlib.sha256(evidence.release.encode())
    for path in (evidence.btf, evidence.config):
        digest.update(b"\0")
        if path:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _judge(group: Sequence[Evidence], objects: Path, inspections: Inspections) -> Judged:
    first, nodes = group[0], tuple(each.node for each in group)
    try:
        report = probe_offline(
            btf=first.btf,
            config=first.config,
            release=first.release,
            objects=objects,
            inspections=inspections,
        )
    except KmeshError as error:
        return Judged(release=first.release, nodes=nodes, report=None, problem=str(error))
    return Judged(release=first.release, nodes=nodes, report=report)


def _changes(kernels: Sequence[Judged]) -> list[Change]:
    """What could be done, that which lifts most nodes first."""
    judged = [kernel for kernel in kernels if kernel.report]
    found = [*_mendings(judged), *_moves(judged)]
    lifting = [change for change in found if change.lifts]
    return sorted(lifting, key=lambda change: (-change.nodes, change.what))


def _mendings(kernels: Sequence[Judged]) -> Iterator[Change]:
    """For each kernel and each better path: all that it takes, and whom else that would lift."""
    wanted = {
        remedies
        for kernel in kernels
        for path in PATHS
        if _RANK[path] > _RANK[kernel.mode] and (remedies := _remedies(kernel, path))
    }
    for remedies in sorted(wanted, key=sorted):
        lifts: Counter[str] = Counter()
        for kernel in kernels:
            assert kernel.report is not None
            mode = choose(_mended(kernel.report.findings, remedies)).mode
            if _RANK[mode] > _RANK[kernel.mode]:
                lifts[mode] += len(kernel.nodes)
        yield Change(what="; and ".join(sorted(remedies)), lifts=dict(lifts))


def _mended(findings: Iterable[Finding], remedies: frozenset[str]) -> list[Finding]:
    return [
        replace(finding, verdict=Verdict.PRESENT) if finding.remedy in remedies else finding
        for finding in findings
    ]


def _remedies(kernel: Judged, path: str) -> frozenset[str]:
    """What would mend everything that keeps a kernel from a path."""
    assert kernel.report is not None
    return frozenset(
        finding.remedy
        for finding in kernel.report.findings
        if finding.verdict not in (Verdict.PRESENT, Verdict.INCONCLUSIVE)
        and path in needed_by(finding.capability)
        and finding.remedy
    )


def _moves(kernels: Sequence[Judged]) -> Iterator[Change]:
    """Kernels of the fleet that others could be given: of each mode the one that most nodes have."""
    for mode in PATHS:
        best = max(
            (kernel for kernel in kernels if kernel.mode == mode),
            key=lambda kernel: len(kernel.nodes),
            default=None,
        )
        below = sum(len(kernel.nodes) for kernel in kernels if _RANK[kernel.mode] < _RANK[mode])
        if best and below:
            what = f"give nodes the kernel {best.release}, which {len(best.nodes)} of them run"
            yield Change(what=what, lifts={mode: below})
