# SPDX-License-Identifier: Apache-2.0
"""What was not as a scenario says it must be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ci.matrix.inside.scenarios import Expected, Scenario

Json = Mapping[str, Any]


def complaints(scenario: Scenario, report: Json, run: Json) -> list[str]:
    """All differences, a line each; none is success.

    Args:
        scenario: with what it expects.
        report: the prober's, as JSON.
        run: what `kmesh run` came to.
    """
    found = {each["capability"]: each for each in report["findings"]}
    differences = [
        line
        for name, expected in scenario.expected.items()
        for line in _finding(name, expected, found.get(name))
    ]
    if report["mode"]["mode"] != scenario.mode:
        because = "; ".join(report["mode"]["reasons"])
        differences.append(
            f"the prober says mode {report['mode']['mode']}, not {scenario.mode}: {because}"
        )
    return [*differences, *_running(scenario, run)]


def _finding(name: str, expected: Expected, finding: Json | None) -> Iterator[str]:
    if finding is None:
        yield f"{name}: nothing was found out"
        return
    if finding["verdict"] != expected.verdict:
        yield f"{name} is {finding['verdict']}, not {expected.verdict}"
    reasons = "\n".join(each["summary"] for each in finding["evidence"])
    if not re.search(expected.reason, reasons):
        yield f"{name}: no reason says {expected.reason!r}: {reasons}"
    if not re.search(expected.remedy, finding["remedy"]):
        yield f"{name}: the remedy does not say {expected.remedy!r}: {finding['remedy']}"
    if expected.verdict != "present" and not finding["consequence"]:
        yield f"{name}: it is not said what it costs"


def _running(scenario: Scenario, run: Json) -> Iterator[str]:
    if run["mode"] != scenario.mode:
        yield f"kmesh run: mode {run['mode']}, not {scenario.mode}: {run['log'][-1500:]}"
    elif scenario.mode == "none":
        yield from _refusal(scenario, run)
    else:
        if set(run["answers"]) != {"blue", "green"}:
            yield f"kmesh run: not both backends answered: {run['answers']}"
        if run["status"]:
            yield f"kmesh run: ended with status {run['status']}: {run['log'][-800:]}"
        if run["left"]:
            yield f"kmesh run: left {', '.join(run['left'])}"


def _refusal(scenario: Scenario, run: Json) -> Iterator[str]:
    log = str(run["log"])
    if not run["status"]:
        yield "kmesh run: ended with status 0 and ran nothing"
    if not re.search(scenario.refusal, log):
        yield f"kmesh run: the refusal does not say {scenario.refusal!r}: {log[-800:]}"
    if "Traceback" in log:
        yield f"kmesh run: a traceback: {log[-1500:]}"
    if "hint" not in log:
        yield f"kmesh run: no hint: {log[-800:]}"
