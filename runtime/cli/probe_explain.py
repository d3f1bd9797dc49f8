# SPDX-License-Identifier: Apache-2.0
"""`kmesh probe --explain`: one capability, with every observation and the verifier's whole log."""

from __future__ import annotations

import difflib
import errno

import click

from runtime import ui
from runtime.errors import KmeshError
from runtime.probe.battery import title_of
from runtime.probe.mode import needed_by
from runtime.probe.report import Report, finding_json
from runtime.probe.verdict import Evidence, Finding, Level


def show(report: Report, capability: str, *, as_json: bool) -> None:
    """Print everything about one capability.

    Raises:
        KmeshError: nothing is known under this name.
    """
    finding = report.finding(capability)
    if finding is None:
        raise _unknown(report, capability)
    if as_json:
        ui.print_json(finding_json(finding))
        return
    for line in _lines(finding):
        click.echo(line)


def _unknown(report: Report, capability: str) -> KmeshError:
    names = [finding.capability for finding in report.findings]
    near = difflib.get_close_matches(capability, names, n=3) or sorted(names)[:5]
    return KmeshError(
        f"nothing is known about a capability {capability}", hint=f"try: {', '.join(near)}"
    )


def _lines(finding: Finding) -> list[str]:
    paths = needed_by(finding.capability)
    need = (
        f"needed by: {', '.join(paths)}" if paths else "needed by no path; things are worse without"
    )
    lines = [
        f"{finding.capability}: {finding.verdict}",
        f"  {title_of(finding.capability)}",
        f"  {need}",
    ]
    if finding.consequence:
        lines.append(f"  costs you: {finding.consequence}")
    if finding.remedy:
        lines.append(f"  to mend:   {finding.remedy}")
    lines.append("  evidence, strongest first:")
    for item in reversed(finding.evidence):
        lines += _evidence(item)
    return lines


def _evidence(item: Evidence) -> list[str]:
    code = f" [{errno.errorcode.get(item.errno, item.errno)}]" if item.errno else ""
    lines = [f"    {_LEVELS[item.level]}: {item.verdict}: {item.summary}{code}"]
    return lines + [f"      | {line}" for line in item.log.splitlines()]


_LEVELS = {
    Level.FACT: "what the host says",
    Level.NAME: "names in the kernel's BTF",
    Level.LOAD: "loading it",
    Level.BEHAVIOUR: "trying it",
}
