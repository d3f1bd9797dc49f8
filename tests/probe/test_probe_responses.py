# SPDX-License-Identifier: Apache-2.0
"""Which way responses go home is a pure function of the findings and of what the user said."""

from __future__ import annotations

import pytest

from runtime.probe.responses import (
    NEEDS,
    REMEDY,
    SOME_NEED,
    ResponsesDecision,
    in_words,
    responses_decision,
)
from runtime.probe.verdict import Evidence, Finding, Level, Verdict


def _finding(name: str, verdict: Verdict = Verdict.PRESENT, *, remedy: str = "") -> Finding:
    seen = Evidence(level=Level.BEHAVIOUR, verdict=verdict, summary=f"{name} as seen")
    return Finding(capability=name, verdict=verdict, evidence=(seen,), remedy=remedy)


def _all(changed: dict[str, Verdict] | None = None, *, remedy: str = "") -> list[Finding]:
    verdicts = changed or {}
    return [
        _finding(
            name, verdicts.get(name, Verdict.PRESENT), remedy=remedy if name in verdicts else ""
        )
        for name in (*NEEDS, *SOME_NEED)
    ]


@pytest.mark.parametrize("wanted", ["auto", "kernel"])
def test_within_the_kernel_where_everything_was_seen_to_work(wanted: str) -> None:
    decision = responses_decision(_all(), wanted=wanted)
    assert decision == ResponsesDecision(way="kernel")
    assert in_words(decision) == "within the kernel"


def test_by_the_gate_where_that_was_asked_for() -> None:
    decision = responses_decision(_all(), wanted="gate")
    assert decision == ResponsesDecision(way="gate", reasons=("--responses gate was asked for",))


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.PRESENT])
@pytest.mark.parametrize("wanted", ["auto", "kernel"])
def test_never_within_the_kernel_without_any_one_need(
    name: str, verdict: Verdict, wanted: str
) -> None:
    decision = responses_decision(_all({name: verdict}, remedy="a way out"), wanted=wanted)
    assert decision == ResponsesDecision(
        way="gate",
        reasons=(f"{name} is {verdict} ({name} as seen)",),
        remedy="a way out",
        warned=wanted == "kernel",
    )


@pytest.mark.parametrize("name", NEEDS)
def test_by_the_gate_when_a_need_was_not_looked_at(name: str) -> None:
    findings = [finding for finding in _all() if finding.capability != name]
    decision = responses_decision(findings)
    assert (decision.way, decision.reasons) == ("gate", (f"{name} was not looked at",))
    assert "without --quick" in decision.remedy


@pytest.mark.parametrize(("name", "who"), SOME_NEED.items())
@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.PRESENT])
def test_what_hurts_some_is_for_the_user_to_waive(name: str, who: str, verdict: Verdict) -> None:
    findings = _all({name: verdict})
    told = (f"{who}: {name} is {verdict} ({name} as seen)",)
    assert responses_decision(findings) == ResponsesDecision(
        way="gate", reasons=told, remedy=REMEDY
    )
    decision = responses_decision(findings, wanted="kernel")
    assert decision == ResponsesDecision(way="kernel", reasons=told, warned=True)
    assert in_words(decision) == f"within the kernel (take care: {told[0]})"


def test_a_way_that_did_not_decide_its_finding_counts() -> None:
    redirected = Evidence(level=Level.FACT, verdict=Verdict.BROKEN, summary="redirected: 0 of 100")
    passed = Evidence(level=Level.BEHAVIOUR, verdict=Verdict.PRESENT, summary="passed: all")
    name = "sockmap.splice.read"
    finding = Finding(capability=name, verdict=Verdict.PRESENT, evidence=(redirected, passed))
    decision = responses_decision([*(each for each in _all() if each.capability != name), finding])
    assert decision.way == "gate"
    assert "redirected: 0 of 100" in decision.reasons[0]


def test_many_reasons_are_one_line_of_two() -> None:
    decision = responses_decision([])
    assert len(decision.reasons) == len(NEEDS)
    first, second = NEEDS[:2]
    assert in_words(decision) == (
        f"by the gate: {first} was not looked at; {second} was not looked at"
        f" (and {len(NEEDS) - 2} more)"
    )


def test_as_json() -> None:
    data = responses_decision(_all({"sockmap.home.end": Verdict.BROKEN})).to_json()
    assert data.keys() == {"way", "reasons", "remedy"}
    assert data["way"] == "gate"
    assert isinstance(data["reasons"], list)
