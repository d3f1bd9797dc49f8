# SPDX-License-Identifier: Apache-2.0
"""Whether objects do for a kernel: its verifier's word where it may be asked, names in its BTF where not.

Only what objects and kernel have to do with each other counts: that no cgroup is mounted in here, or
that this process may not load anything, says nothing about the objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from builder.host.evidence import Target
from runtime.errors import KmeshError
from runtime.probe.mode import PATHS, explain
from runtime.probe.report import Report
from runtime.probe.run import probe, probe_offline
from runtime.probe.verdict import Finding, Verdict

_OF_OBJECTS = ("objects", "helpers", "kfuncs", "programs", "maps", "fields", "load")
_FAILED = (Verdict.ABSENT, Verdict.BROKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a kernel says of objects.

    Attributes:
        paths: those whose objects do, best first.
        how: "loaded" by the kernel itself, by their "names" in its BTF, or "unverified".
        reasons: what stands in the way of the other paths.
        remedies: what would mend that.
    """

    paths: tuple[str, ...]
    how: str
    reasons: tuple[str, ...]
    remedies: tuple[str, ...]


def judge(target: Target, objects: Path) -> Judgement:
    """Judge objects for a kernel.

    Args:
        target: the kernel.
        objects: a directory of objects.
    """
    if target.running:
        report = probe(objects=objects, quick=True, cache=False)
        judged = judgement(report, how="loaded")
        if not _is_denied(report, judged.paths):
            return judged
    if target.btf is not None:
        return judgement(_offline(target, objects), how="names")
    return Judgement(paths=("compat",), how="unverified", reasons=(), remedies=())


def _offline(target: Target, objects: Path) -> Report:
    assert target.btf is not None
    try:
        return probe_offline(
            btf=target.btf, config=target.config, release=target.release, objects=objects
        )
    except KmeshError:
        if target.config is None:
            raise
        # A configuration that cannot be read decides less; the BTF alone will do.
        return probe_offline(btf=target.btf, config=None, release=target.release, objects=objects)


def judgement(report: Report, *, how: str) -> Judgement:
    """What a report says of the objects, whatever it says of the host."""
    failed = {path: list(_failed(report.findings, path)) for path in PATHS}
    against = [finding for findings in failed.values() for finding in findings]
    return Judgement(
        paths=tuple(path for path, findings in failed.items() if not findings),
        how=how,
        reasons=tuple(dict.fromkeys(explain(finding) for finding in against)),
        remedies=tuple(dict.fromkeys(f.remedy for f in against if f.remedy)),
    )


def _failed(findings: Iterable[Finding], path: str) -> Iterable[Finding]:
    patterns = ("bpf", *(f"{kind}.{path}" for kind in _OF_OBJECTS))
    for finding in findings:
        ours = any(
            fnmatchcase(finding.capability, pattern)
            or fnmatchcase(finding.capability, f"{pattern}.*")
            for pattern in patterns
        )
        if ours and finding.verdict in _FAILED:
            yield finding


def _is_denied(report: Report, paths: Iterable[str]) -> bool:
    """Whether the kernel did not let itself be asked about one of the paths that seem to do."""
    wanted = tuple(f"load.{path}." for path in paths) or ("load.",)
    return any(
        finding.capability.startswith(wanted)
        and finding.verdict in (Verdict.DENIED, Verdict.INCONCLUSIVE)
        for finding in report.findings
    )
