# SPDX-License-Identifier: Apache-2.0
"""The report: everything found out about one kernel, in the form that machines read.

The form has a version and a schema (schema/report-v1.json). Adding is allowed within a version;
renaming, removing and changing a meaning make a new one.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.probe.bugs import BugHit
from runtime.probe.facts import Facts
from runtime.probe.mode import ModeDecision, needed_by
from runtime.probe.provider import Provider, choose
from runtime.probe.responses import ResponsesDecision, responses_decision
from runtime.probe.verdict import Evidence, Finding, Level, Verdict

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the prober says.

    Attributes:
        offline: judged from files; the kernel was not asked (evidence: facts and names alone).
        quick: the behaviour battery was left out.
        taken_at: when the findings were made, ISO 8601 UTC.
        cached: the findings are from an earlier run under the same key.
        stand_in: the BTF that the objects were relocated against, where the kernel has none.
    """

    facts: Facts
    findings: tuple[Finding, ...]
    bugs: tuple[BugHit, ...]
    mode: ModeDecision
    duration_ms: int
    taken_at: str
    kmesh_version: str
    offline: bool = False
    quick: bool = False
    cached: bool = False
    stand_in: Path | None = None
    schema_version: int = SCHEMA_VERSION

    def finding(self, capability: str) -> Finding | None:
        """The finding about a capability, or None when nothing was found out about it."""
        return next((item for item in self.findings if item.capability == capability), None)

    @property
    def provider(self) -> Provider:
        """Who provides the enhanced path on this kernel, and why."""
        return choose(self.findings, self.mode)

    @property
    def responses(self) -> ResponsesDecision:
        """Which way responses of the enhanced path go home on this kernel, and why."""
        return responses_decision(self.findings)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON data, as the schema describes it."""
        return {
            "schema_version": self.schema_version,
            "kmesh_version": self.kmesh_version,
            "taken_at": self.taken_at,
            "duration_ms": self.duration_ms,
            "offline": self.offline,
            "quick": self.quick,
            "cached": self.cached,
            "kernel": self.facts.to_json(),
            "mode": self.mode.to_json(),
            "provider": self.provider.to_json(),
            "responses": self.responses.to_json(),
            "findings": [finding_json(item) for item in self.findings],
            "bugs": [hit.to_json() for hit in self.bugs],
        }


def schema() -> dict[str, Any]:
    """The JSON schema of the report, as shipped."""
    path = Path(__file__).parent / "schema" / f"report-v{SCHEMA_VERSION}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "capability": finding.capability,
        "verdict": str(finding.verdict),
        "needed_by": list(needed_by(finding.capability)),
        "evidence": [_evidence_json(item) for item in finding.evidence],
        "consequence": finding.consequence,
        "remedy": finding.remedy,
    }


def _evidence_json(item: Evidence) -> dict[str, Any]:
    return {
        "level": item.level.name.lower(),
        "verdict": str(item.verdict),
        "summary": item.summary,
        "errno": item.errno,
        "errno_name": errno.errorcode.get(item.errno) if item.errno else None,
        "log": item.log,
        "remedy": item.remedy,
    }


def finding_from_json(data: dict[str, Any]) -> Finding:
    """The finding that `finding_json` wrote.

    Raises:
        KeyError, ValueError: it is no such thing.
    """
    return Finding(
        capability=data["capability"],
        verdict=Verdict(data["verdict"]),
        evidence=tuple(_evidence_from_json(item) for item in data["evidence"]),
        consequence=data["consequence"],
        remedy=data["remedy"],
    )


def _evidence_from_json(data: dict[str, Any]) -> Evidence:
    return Evidence(
        level=Level[data["level"].upper()],
        verdict=Verdict(data["verdict"]),
        summary=data["summary"],
        errno=data["errno"],
        log=data["log"],
        remedy=data["remedy"],
    )
