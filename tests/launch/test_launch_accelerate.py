# SPDX-License-Identifier: Apache-2.0
"""Whether acceleration runs is a pure function of the findings and of what the user said."""

from __future__ import annotations

import pytest

from runtime.launch.accelerate import NEEDS, SOME_NEED, accelerate_decision
from runtime.probe.verdict import Evidence, Finding, Level, Verdict


def _finding(name: str, verdict: Verdict = Verdict.PRESENT) -> Finding:
    seen = Evidence(level=Level.BEHAVIOUR, verdict=verdict, summary=f"{name} as seen")
    return Finding(capability=name, verdict=verdict, evidence=(seen,))


def _all(**changed: Verdict) -> list[Finding]:
    by_name = {name.replace("__", "."): verdict for name, verdict in changed.items()}
    return [_finding(name, by_name.get(name, Verdict.PRESENT)) for name in (*NEEDS, *SOME_NEED)]


def test_on_where_everything_was_seen_to_work() -> None:
    assert accelerate_decision(_all()) == (True, "")


def test_off_when_turned_off() -> None:
    assert accelerate_decision(_all(), wanted=False) == (False, "turned off (--no-acceleration)")


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.PRESENT])
@pytest.mark.parametrize("wanted", [None, True])
def test_off_without_any_one_need(name: str, verdict: Verdict, wanted: bool | None) -> None:  # noqa: FBT001
    on, why = accelerate_decision(_all(**{name.replace(".", "__"): verdict}), wanted=wanted)
    assert not on
    assert why == f"{name} is {verdict} ({name} as seen)"


@pytest.mark.parametrize("name", NEEDS)
def test_off_when_a_need_was_not_looked_at(name: str) -> None:
    findings = [finding for finding in _all() if finding.capability != name]
    assert accelerate_decision(findings) == (False, f"{name} was not looked at")


def test_what_some_programs_need_is_for_the_user_to_waive() -> None:
    findings = _all(sockmap__splice__read=Verdict.BROKEN)
    on, why = accelerate_decision(findings)
    assert not on
    assert "would stall" in why
    assert "--acceleration" in why
    on, why = accelerate_decision(findings, wanted=True)
    assert on
    assert "would stall" in why


def test_a_way_that_did_not_decide_its_finding_counts() -> None:
    redirected = Evidence(level=Level.FACT, verdict=Verdict.BROKEN, summary="redirected: 0 of 100")
    passed = Evidence(level=Level.BEHAVIOUR, verdict=Verdict.PRESENT, summary="passed: all")
    name = "sockmap.splice.read"
    finding = Finding(capability=name, verdict=Verdict.PRESENT, evidence=(redirected, passed))
    findings = [each for each in _all() if each.capability != name]
    on, why = accelerate_decision([*findings, finding])
    assert not on
    assert "redirected: 0 of 100" in why
