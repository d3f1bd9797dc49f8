# SPDX-License-Identifier: Apache-2.0
"""From verdicts to a mode: a pure function, and the one place that says what each path needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from runtime.probe.verdict import Finding, Verdict, deciding

PATHS = ("enhanced", "compat")  # best first
OBJECTS = "objects.enhanced"

# Names or patterns; of a tuple one is enough. What is not listed makes a path worse, not impossible.
Need = str | tuple[str, ...]
_HOST: tuple[Need, ...] = ("cgroup2", "bpffs")
_COMPAT: tuple[Need, ...] = (
    "bpf",
    "capability.bpf",
    "capability.net_admin",
    *_HOST,
    "objects.compat",
    "helpers.compat.*",
    "kfuncs.compat.*",
    "programs.compat.*",
    "maps.compat.*",
    "fields.compat.*",
    "load.compat.*",
    "connect.ipv4",
)
_ENHANCED: tuple[Need, ...] = (
    "sockops",
    "sk_storage",
    "sockmap.egress",
    "sockmap.epoll",
    "sockmap.split",
    "sockmap.close",
    ("sockmap.flow_control.btf", "sockmap.flow_control.bounded"),
    "http.exchange",
)
_ENHANCED_OBJECTS: tuple[Need, ...] = (
    OBJECTS,
    "helpers.enhanced.*",
    "kfuncs.enhanced.*",
    "programs.enhanced.*",
    "maps.enhanced.*",
    "fields.enhanced.*",
    "load.enhanced.*",
)
# The enhanced path is the compat path and more.
NEEDS: Mapping[str, tuple[Need, ...]] = {
    "compat": _COMPAT,
    "enhanced": (*_COMPAT, *_ENHANCED, *_ENHANCED_OBJECTS),
}
# What the kernel by itself could run: the same without what host and build bring along.
_KERNEL: tuple[Need, ...] = tuple(
    need for need in _COMPAT if need not in ("objects.compat", *_HOST)
)
_KERNEL_NEEDS: Mapping[str, tuple[Need, ...]] = {
    "compat": _KERNEL,
    "enhanced": (*_KERNEL, *_ENHANCED),
}
# Trying these takes a scratch network namespace. That this process may not make one says nothing
# about the path: whether its programs may be loaded and attached is known from "load.*".
_TRIED = ("connect.*", "sockops", "sk_storage", "sockmap.*", "http.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeDecision:
    """What will run, and why not more.

    Attributes:
        mode: enhanced, compat or none.
        reasons: why it is not a better one, a line each; empty for enhanced.
        kernel_mode: what this kernel could run by itself, whatever this build brings along. What this
            process was denied does not count against the kernel.
        refused: for each path that cannot run, the reasons.
        unverified: needs of the mode chosen that no check could decide.
    """

    mode: str
    reasons: tuple[str, ...]
    kernel_mode: str
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "kernel_mode": self.kernel_mode,
            "reasons": list(self.reasons),
            "refused": {path: list(reasons) for path, reasons in self.refused.items()},
            "unverified": list(self.unverified),
        }


def choose(findings: Iterable[Finding], *, tried: bool = False) -> ModeDecision:
    """Choose the best path of which every need is met, or could not be disproved.

    Args:
        findings: everything that was found out; each capability once.
        tried: the behaviour battery ran. Then what it could not try counts against the enhanced
            path: there a kernel that only looks fine loses data.
    """
    by_name = {finding.capability: finding for finding in findings}
    refused = {path: tuple(_reasons(by_name, NEEDS[path])) for path in PATHS}
    if tried:
        untried = (explain(by_name[name]) for name in _unverified(by_name, _ENHANCED))
        refused["enhanced"] = (*refused["enhanced"], *untried)
    refused = {path: reasons for path, reasons in refused.items() if reasons}
    mode = next((path for path in PATHS if path not in refused), "none")
    kernel = {
        path: any(_fails(by_name, need, forgive_denied=True) for need in _KERNEL_NEEDS[path])
        for path in PATHS
    }
    better = PATHS[: PATHS.index(mode)] if mode in PATHS else PATHS
    said = [f"{path}: {reason}" for path in better for reason in refused[path]]
    return ModeDecision(
        mode=mode,
        reasons=tuple(_once(said)),
        kernel_mode=next((path for path in PATHS if not kernel[path]), "none"),
        refused=refused,
        unverified=tuple(_unverified(by_name, NEEDS[mode])) if mode in NEEDS else (),
    )


def failing(findings: Iterable[Finding], path: str) -> list[Finding]:
    """The findings that keep a kernel from a path, each once; of alternatives, all must fail."""
    by_name = {finding.capability: finding for finding in findings}
    found = (finding for need in NEEDS[path] for finding in _fails(by_name, need))
    return list({finding.capability: finding for finding in found}.values())


def needed_by(capability: str) -> tuple[str, ...]:
    """The paths that cannot run without a capability (or one that can stand in for it)."""
    return tuple(
        path
        for path in reversed(PATHS)
        if any(
            fnmatchcase(capability, pattern) for need in NEEDS[path] for pattern in _patterns(need)
        )
    )


def _patterns(need: Need) -> tuple[str, ...]:
    return need if isinstance(need, tuple) else (need,)


def _matching(by_name: Mapping[str, Finding], need: Need) -> list[Finding]:
    return [
        finding
        for name, finding in by_name.items()
        if any(fnmatchcase(name, pattern) for pattern in _patterns(need))
    ]


def _fails(
    by_name: Mapping[str, Finding], need: Need, *, forgive_denied: bool = False
) -> list[Finding]:
    """The findings that disprove a need; of alternatives, all must fail."""
    found = _matching(by_name, need)
    failed = [
        finding
        for finding in found
        if finding.verdict not in (Verdict.PRESENT, Verdict.INCONCLUSIVE)
        and not (finding.verdict is Verdict.DENIED and (forgive_denied or _is_tried(finding)))
    ]
    if isinstance(need, tuple) and len(failed) < len(found):
        return []
    return failed


def _is_tried(finding: Finding) -> bool:
    return any(fnmatchcase(finding.capability, pattern) for pattern in _TRIED)


def _reasons(by_name: Mapping[str, Finding], needs: Iterable[Need]) -> Iterator[str]:
    for need in needs:
        for finding in _fails(by_name, need):
            yield explain(finding)


def lacking(findings: Iterable[Finding], group: str) -> str:
    """Why the objects of a group that runs beside the paths cannot run here, "" when they can.

    Args:
        findings: the prober's.
        group: "accelerate", "bypass", "authorize", "telemetry".
    """
    fine = (Verdict.PRESENT, Verdict.INCONCLUSIVE)
    bad = (
        finding
        for finding in findings
        if finding.verdict not in fine and f".{group}." in finding.capability
    )
    return "; ".join(explain(finding) for finding in bad)


def explain(finding: Finding) -> str:
    """One finding as half a sentence: "cgroup2 is absent (not mounted)"."""
    decided = deciding(finding)
    because = f" ({decided.summary})" if decided else ""
    return f"{finding.capability} is {finding.verdict}{because}"


def _unverified(by_name: Mapping[str, Finding], needs: Iterable[Need]) -> Iterator[str]:
    for need in needs:
        found = _matching(by_name, need)
        open_ones = [
            item.capability
            for item in found
            if item.verdict is Verdict.INCONCLUSIVE
            or (item.verdict is Verdict.DENIED and _is_tried(item))
        ]
        if open_ones and not any(
            isinstance(need, tuple) and item.verdict is Verdict.PRESENT for item in found
        ):
            yield from open_ones


def _once(lines: Iterable[str]) -> list[str]:
    """Each reason once: what stops compat stops enhanced too."""
    seen: dict[str, str] = {}
    for line in lines:
        path, _, reason = line.partition(": ")
        seen[reason] = f"{path}, {seen[reason].split(': ')[0]}" if reason in seen else path
    return [f"{path}: {reason}" for reason, path in seen.items()]
