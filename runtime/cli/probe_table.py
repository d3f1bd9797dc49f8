# SPDX-License-Identifier: Apache-2.0
"""The report for people: the kernel, the mode and its reason first, then only what is not fine.

Findings with one cause are one entry: eight objects refused for one missing capability are one
problem, and its remedy stands there once.
"""

from __future__ import annotations

import errno
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator

import click

from runtime.probe.denial import grant
from runtime.probe.mode import PATHS, explain
from runtime.probe.provider import CAPABILITY
from runtime.probe.report import Report
from runtime.probe.responses import HOME, in_words
from runtime.probe.verdict import Finding, Verdict, deciding

_MODES = {
    "enhanced": "HTTP is routed request by request inside the kernel",
    "compat": "connections are balanced in the kernel, HTTP goes to a waypoint",
    "none": "Kmesh can manage no traffic on this node",
}
_MODE_COLOURS = {"enhanced": "green", "compat": "yellow", "none": "red"}
_COLOURS = {
    Verdict.ABSENT: "yellow",
    Verdict.DENIED: "magenta",
    Verdict.BROKEN: "red",
    Verdict.INCONCLUSIVE: "cyan",
}
_WHY = {
    "absent": "there is no",
    "denied": "this process is denied",
    "broken": "not sound here:",
}
_PRIVILEGE = "capability."
_OWN_REMEDY = ("bpffs", "cgroup2", "memlock")  # denied, and mended otherwise than by a capability
_WIDTH = 10
_LISTED = 6
_SHOWN = 5


def show_report(report: Report) -> None:
    """Print the report."""
    _row("Kernel", ", ".join(_kernel(report)))
    mode = report.mode.mode
    _row("Mode", f"{mode}: {_MODES[mode]}", colour=_MODE_COLOURS[mode])
    for index, reason in enumerate(_why(report)):
        _row("" if index else "Why", reason)
    if report.finding(CAPABILITY) is not None:  # a kernel that has something of it
        _row("Provider", f"{report.provider.name}: {report.provider.reason}")
    if report.mode.kernel_mode == PATHS[0] and report.finding(HOME) is not None:
        _row("Responses", in_words(report.responses))
    avoided = {name for hit in report.bugs if not hit.overruled for name in hit.bug.avoids}
    told = _privileges(report) | avoided
    stops, rest = _split(report, told=told)
    _entries("In the way of a better mode", stops)
    _entries("Works, with less", rest)
    _bugs(report)
    _foot(report)


def _row(name: str, value: str, *, colour: str | None = None) -> None:
    """A labelled value; on a terminal what does not fit goes on under its beginning."""
    width = max(shutil.get_terminal_size().columns - _WIDTH, 20) if sys.stdout.isatty() else None
    lines = textwrap.wrap(value, width, break_on_hyphens=False) if width else [value]
    for index, line in enumerate(lines):
        label = name if index == 0 else ""
        click.echo(click.style(f"{label:<{_WIDTH}}", bold=True) + click.style(line, fg=colour))


def _title(title: str) -> None:
    click.echo()
    click.secho(title, bold=True)


def _head(word: str, rest: str, *, colour: str) -> None:
    click.echo(f"  {click.style(word, fg=colour)}  {rest}")


def _kernel(report: Report) -> Iterator[str]:
    facts = report.facts
    yield f"{facts.release} {facts.machine}".strip()
    version = str(facts.upstream.version or "")
    if version and not facts.release.startswith(version):
        yield f"upstream version {version}"
    if facts.distribution:
        yield facts.distribution
    if facts.cgroup:
        yield f"cgroup {facts.cgroup}"
    if facts.container:
        yield f"in a container ({facts.container})"
    if report.offline:
        yield "not running: judged from its BTF and configuration alone"


def _why(report: Report) -> Iterator[str]:
    mode = report.mode
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for reason in mode.reasons:
        paths, _, text = reason.partition(": ")
        capability, _, because = text.partition(" is ")
        verdict, _, detail = because.partition(" ")
        groups.setdefault((paths, verdict), []).append((capability, detail.strip("()")))
    for (paths, verdict), reasons in groups.items():
        yield f"not {paths.replace(', ', ' or ')}: {_because(verdict, reasons)}"
    if mode.kernel_mode not in (mode.mode, "none"):
        unsure = " (going by names: behaviour was not tried)" if _untried(report) else ""
        yield f"the kernel itself could run {mode.kernel_mode}{unsure}"
    if report.offline:
        yield "loading and trying it is left to that kernel: names alone were looked at"
    elif mode.unverified:
        yield f"{mode.mode} was not tried in full: {_listed(mode.unverified)}"


def _because(verdict: str, reasons: list[tuple[str, str]]) -> str:
    """One reason in its own words, many by name: their words follow below."""
    names = _listed(name for name, _ in reasons)
    if len(reasons) == 1 and reasons[0][1]:
        return f"{reasons[0][1]} ({names})"
    return f"{_WHY[verdict]} {names}"


def _untried(report: Report) -> bool:
    return report.quick or report.offline


def _listed(names: Iterable[str]) -> str:
    """A few names whole, many shortened."""
    short = _shortened(names)
    more = len(short) - _LISTED
    return ", ".join(short[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _shortened(names: Iterable[str]) -> list[str]:
    """Names of one kind become one: load.compat.a and load.compat.b are "load.compat.* (2)"."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        of_object = len(parts) > 2 and parts[1] in ("compat", "enhanced")
        kinds.setdefault(f"{parts[0]}.{parts[1]}.*" if of_object else name, []).append(name)
    return [same[0] if len(same) == 1 else f"{kind} ({len(same)})" for kind, same in kinds.items()]


def _privileges(report: Report) -> frozenset[str]:
    """Missing capabilities as one entry, with all that fails for want of them.

    Returns:
        the capabilities that are told with it.
    """
    denied = [item for item in report.findings if item.verdict is Verdict.DENIED]
    roots = [item for item in denied if item.capability.startswith(_PRIVILEGE)]
    if not roots:
        return frozenset()
    _title("Privileges that this process lacks")
    missing = [item.capability.removeprefix(_PRIVILEGE).upper() for item in roots]
    rootless = report.facts.user_namespace
    _entry(roots, mend=roots[0].remedy if rootless else grant(*missing))
    rest = [item for item in denied if item not in roots and item.capability not in _OWN_REMEDY]
    if rest:
        names = ", ".join(_shortened(item.capability for item in rest))
        _row("    hence", f"denied too: {names}")
    return frozenset(item.capability for item in (*roots, *rest))


def _split(report: Report, *, told: frozenset[str]) -> tuple[list[Finding], list[Finding]]:
    """What keeps a path from running, and what only makes things worse."""
    reasons = {reason for path in report.mode.refused.values() for reason in path}
    stops, rest = [], []
    for item in report.findings:
        if item.verdict is Verdict.PRESENT or item.capability in told:
            continue
        if explain(item) in reasons:
            stops.append(item)
        elif _matters(item, report):
            rest.append(item)
    return stops, rest


def _matters(item: Finding, report: Report) -> bool:
    """Whether a finding that stops nothing is worth a line at three in the morning."""
    if item.capability.startswith("compile."):  # for when nothing that is shipped loads
        return report.mode.mode == "none"
    # What is open only because nobody tried is told in the head of the report.
    return item.verdict is not Verdict.INCONCLUSIVE or not _untried(report)


def _entries(title: str, findings: list[Finding]) -> None:
    if not findings:
        return
    _title(title)
    groups: dict[tuple[str, str], list[Finding]] = {}
    for item in findings:
        groups.setdefault((item.verdict, item.remedy), []).append(item)
    for group in groups.values():
        _entry(group, mend=group[0].remedy)


def _entry(group: list[Finding], *, mend: str) -> None:
    verdict = group[0].verdict
    names = ", ".join(_shortened(item.capability for item in group))
    _head(verdict.upper(), names, colour=_COLOURS[verdict])
    _lines("    seen", (_observed(item) for item in group))
    if verdict is not Verdict.INCONCLUSIVE:  # it may cost nothing at all
        _lines("    costs", (item.consequence for item in group))
    if mend:
        _row("    mend", mend)


def _lines(name: str, lines: Iterable[str]) -> None:
    """Different lines under one name, the first few of them."""
    unique = list(dict.fromkeys(line for line in lines if line))
    for index, line in enumerate(unique[:_SHOWN]):
        _row("" if index else name, line)
    if len(unique) > _SHOWN:
        _row("", f"and {len(unique) - _SHOWN} more (--explain NAME, --output json)")


def _observed(finding: Finding) -> str:
    decided = deciding(finding)
    if decided is None:
        return "nothing could be observed"
    code = errno.errorcode.get(decided.errno) if decided.errno else None
    return decided.summary + (f" [{code}]" if code and code not in decided.summary else "")


def _bugs(report: Report) -> None:
    if not report.bugs:
        return
    _title("Known bugs of this kernel version")
    for hit in report.bugs:
        word = " (overruled by --ignore-bug)" if hit.overruled else ""
        _head(hit.bug.name, f"{hit.bug.title}{word}", colour="red")
        if hit.bug.avoids and not hit.overruled:
            _row("    so", f"not used, and not tried: {', '.join(hit.bug.avoids)}")
        _row("    costs", hit.bug.consequence)
        _row("    mend", hit.remedy)


def _foot(report: Report) -> None:
    present = (item.capability for item in report.findings if item.verdict is Verdict.PRESENT)
    click.echo()
    fine = ", ".join(_shortened(present)) or "nothing"
    _row("Fine", fine, colour="green")
    taken = f"probed in {report.duration_ms} ms"
    if report.cached:
        taken = f"findings of {report.taken_at}; nothing they depend on has changed (--no-cache)"
    _row("", f"{taken}; `kmesh probe --explain NAME` tells everything about one")
