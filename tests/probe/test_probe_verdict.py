# SPDX-License-Identifier: Apache-2.0
"""How evidence becomes a verdict."""

from __future__ import annotations

import pytest

from runtime.probe.verdict import Evidence, Finding, Level, Verdict, combine, deciding

FACT, NAME, LOAD, BEHAVIOUR = Level
PRESENT, ABSENT, DENIED, BROKEN, OPEN = Verdict


def seen(level: Level, verdict: Verdict, summary: str = "x") -> Evidence:
    return Evidence(level=level, verdict=verdict, summary=summary)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([], OPEN),
        ([(FACT, PRESENT)], PRESENT),
        ([(FACT, PRESENT), (NAME, ABSENT)], ABSENT),
        ([(NAME, ABSENT), (LOAD, PRESENT)], PRESENT),  # a backport: loading beats names
        ([(LOAD, PRESENT), (BEHAVIOUR, BROKEN)], BROKEN),
        ([(NAME, PRESENT), (LOAD, DENIED)], DENIED),
        ([(NAME, ABSENT), (LOAD, DENIED)], ABSENT),  # a refusal does not make it exist
        ([(LOAD, PRESENT), (BEHAVIOUR, OPEN)], PRESENT),  # a check not carried out says nothing
        ([(NAME, ABSENT), (BEHAVIOUR, OPEN)], ABSENT),
        ([(LOAD, PRESENT), (LOAD, DENIED)], DENIED),  # loaded, not attached
        ([(LOAD, PRESENT), (LOAD, ABSENT)], ABSENT),
        ([(FACT, OPEN), (NAME, OPEN)], OPEN),
        ([(FACT, DENIED), (LOAD, PRESENT)], PRESENT),
    ],
)
def test_the_strongest_evidence_decides(
    evidence: list[tuple[Level, Verdict]], expected: Verdict
) -> None:
    pieces = [seen(*item) for item in evidence]
    assert combine(pieces) is expected
    assert combine(reversed(pieces)) is expected


def test_names_cannot_rule_in_what_only_loading_can_tell() -> None:
    assert combine([seen(NAME, PRESENT)], decided_by=LOAD) is OPEN
    assert combine([seen(NAME, ABSENT)], decided_by=LOAD) is ABSENT
    assert combine([seen(LOAD, PRESENT)], decided_by=LOAD) is PRESENT


def test_a_refusal_never_reads_absent() -> None:
    for weaker in (PRESENT, OPEN, BROKEN, DENIED):
        assert combine([seen(NAME, weaker), seen(LOAD, DENIED)]) is DENIED


def test_the_deciding_observation_is_the_strongest_that_agrees() -> None:
    evidence = (
        seen(NAME, BROKEN, "old"),
        seen(BEHAVIOUR, BROKEN, "first"),
        seen(BEHAVIOUR, PRESENT, "other"),
        seen(BEHAVIOUR, BROKEN, "last"),
    )
    finding = Finding(capability="x", verdict=BROKEN, evidence=evidence)
    decided = deciding(finding)
    assert decided is not None
    assert decided.summary == "last"
    assert deciding(Finding(capability="x", verdict=OPEN, evidence=())) is None
