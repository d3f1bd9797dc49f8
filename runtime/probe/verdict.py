# SPDX-License-Identifier: Apache-2.0
"""Verdicts: the words in which the prober speaks about a kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Verdict(StrEnum):
    PRESENT = "present"
    ABSENT = "absent"  # the kernel does not have it
    DENIED = "denied"  # the kernel may have it; this process is not allowed to use it
    BROKEN = "broken"  # it is there, and fails its behaviour check
    INCONCLUSIVE = "inconclusive"  # the check itself could not be carried out


class Level(IntEnum):
    """How strong a piece of evidence is; the strongest decides."""

    FACT = 1
    NAME = 2
    LOAD = 3
    BEHAVIOUR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One observation. `errno` and `log` (a verifier line, say) only where there are any.

    `remedy` is what would mend just this, where the observation knows better than its capability.
    """

    level: Level
    verdict: Verdict
    summary: str
    errno: int | None = None
    log: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found out about one capability.

    Attributes:
        capability: its name, dotted and lower-case: "connect.ipv4", "sockmap.egress".
        verdict: what the strongest evidence says.
        evidence: everything observed, weakest first.
        consequence: what a verdict other than present costs the user; "" when present.
        remedy: what would mend it; "" when present or nothing is known.
    """

    capability: str
    verdict: Verdict
    evidence: tuple[Evidence, ...]
    consequence: str = ""
    remedy: str = ""


# At one level the worse observation counts.
_WORST_FIRST = (Verdict.BROKEN, Verdict.DENIED, Verdict.ABSENT, Verdict.PRESENT)


def combine(evidence: Iterable[Evidence], *, decided_by: Level = Level.FACT) -> Verdict:
    """What all the evidence for a capability says together.

    The strongest level that says anything decides; an inconclusive check says nothing. Two things are
    finer: a refusal tells nothing about the kernel, so that what is known to be absent stays absent;
    and where only a load or a behaviour can tell (`decided_by`), weaker evidence may rule a
    capability out and never in.

    Args:
        evidence: observations, in any order.
        decided_by: the weakest level that can say `present`.
    """
    said = [item for item in evidence if item.verdict is not Verdict.INCONCLUSIVE]
    if not said:
        return Verdict.INCONCLUSIVE
    level = max(item.level for item in said)
    at_level = {item.verdict for item in said if item.level == level}
    verdict = next(word for word in _WORST_FIRST if word in at_level)
    if verdict is Verdict.DENIED and any(item.verdict is Verdict.ABSENT for item in said):
        return Verdict.ABSENT
    if verdict is Verdict.PRESENT and level < decided_by:
        return Verdict.INCONCLUSIVE
    return verdict


def deciding(finding: Finding) -> Evidence | None:
    """The observation that made a finding's verdict: the strongest, latest that agrees with it."""
    agreeing = [item for item in finding.evidence if item.verdict is finding.verdict]
    candidates = agreeing or list(finding.evidence)
    return max(reversed(candidates), key=lambda item: item.level, default=None)
