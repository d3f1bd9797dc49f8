# SPDX-License-Identifier: Apache-2.0
"""Asking the prober, and compiling where nothing prebuilt loads: which objects, and what they can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from runtime import log
from runtime.bpf.objects import relocate_against
from runtime.errors import KmeshError
from runtime.launch import online
from runtime.launch.aside import Aside
from runtime.launch.choose import ImpossibleError, candidates
from runtime.objects.locate import objects_dir
from runtime.probe.facts import Facts
from runtime.probe.mode import needed_by
from runtime.probe.report import Report
from runtime.probe.run import probe
from runtime.probe.verdict import Finding, Verdict

_log = log.get("launch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The prober's report about a directory of objects.

    Attributes:
        objects: the directory, None where nothing is built or installed.
        compiled: what was compiled here, or why it was not, "" when there was no need.
        paths: the paths to start, best first.
    """

    report: Report
    objects: Path | None
    compiled: str = ""
    paths: tuple[str, ...] = ()


class Probing:
    """The probe with the prebuilt objects, under way in a child.

    Args:
        overrides: known bugs that the user vouches for.
        in_child: what the child is to let go of first.
    """

    def __init__(self, *, overrides: frozenset[str], in_child: Callable[[], None]) -> None:
        self.objects = objects = _installed()
        self._aside = Aside(lambda: probe(objects=objects, overrides=overrides), in_child=in_child)
        self.report = self._aside.result
        self.close = self._aside.close


def judge(
    wanted: str,
    *,
    overrides: frozenset[str],
    scratch: Path,
    probing: Probing,
    interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Judged:
    """Probe this kernel with the prebuilt objects, and with freshly compiled ones if those fail.

    Args:
        wanted: the mode that the user asked for.
        overrides: known bugs that the user vouches for.
        scratch: where to compile to.
        probing: the probe with the prebuilt objects.
        interruptible: wraps the compilation, which may be broken off by an exception.

    Raises:
        ImpossibleError: nothing that is wanted can run; the message says why.
    """
    judged = _judged(probing.objects, probing.report())
    if judged.report.mode.mode == "none" and compiling_may_help(judged.report.findings):
        with interruptible():
            why_not, done = _compile(scratch, facts=judged.report.facts)
        judged = replace(judged, compiled=f"nothing: {why_not}")
        if done:
            judged = replace(
                _judged(done.objects, probe(objects=done.objects, overrides=overrides)),
                compiled=done.summary,
            )
    return _decide(judged, wanted)


def compiling_may_help(findings: Sequence[Finding]) -> bool:
    """Whether it is the objects that keep even the compat path from running, and no lack of rights."""
    failed = [
        finding
        for finding in findings
        if "compat" in needed_by(finding.capability)
        and finding.verdict not in (Verdict.PRESENT, Verdict.INCONCLUSIVE)
    ]
    denied = any(finding.verdict is Verdict.DENIED for finding in failed)
    return not denied and any(".compat" in finding.capability for finding in failed)


def _installed() -> Path | None:
    try:
        return objects_dir()
    except KmeshError as error:
        _log.warning("%s", error)
        return None


def _judged(objects: Path | None, report: Report) -> Judged:
    kept = f", findings kept from {report.taken_at}" if report.cached else ""
    _log.info("probed kernel %s in %d ms%s", report.facts.release, report.duration_ms, kept)
    relocate_against(report.stand_in)
    return Judged(report=report, objects=objects)


def _compile(scratch: Path, *, facts: Facts) -> tuple[str, online.Compiled | None]:
    """Compile all objects, or say why not."""
    why_not = online.impossible()
    if why_not is None:
        _log.warning("no prebuilt object of any path can run here: trying to compile")
        try:
            done = online.compile_here(scratch, facts=facts)
        except KmeshError as error:
            why_not = str(error)
        else:
            _log.info("compiled %s", done.summary)
            return "", done
    _log.warning("nothing was compiled here: %s", why_not)
    return why_not, None


def _decide(judged: Judged, wanted: str) -> Judged:
    decision = judged.report.mode
    for reason in decision.reasons:
        _log.info("not %s", reason)
    try:
        paths = candidates(wanted, mode=decision.mode, reasons=decision.reasons)
    except ImpossibleError:
        _log.error("mode none: nothing is started")
        raise
    if decision.unverified:
        _log.warning("not tried, as this process cannot: %s", ", ".join(decision.unverified))
    _log.info(
        "mode %s (asked for: %s; the kernel by itself: %s)", paths[0], wanted, decision.kernel_mode
    )
    return replace(judged, paths=paths)
