# SPDX-License-Identifier: Apache-2.0
"""What the battery says on this kernel is what was measured for it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from runtime.probe.behaviour import checks, run_battery
from runtime.probe.verdict import Finding, Level, Verdict, combine
from tests.probe.behaviour.battery_support import BUDGET

pytestmark = pytest.mark.root

# By kernel: FIONREAD right for passed data without a verdict program, with a no-op one (None: not
# tried, as the first was right), and for data redirected into the receive queue. The longest prefix
# of the release decides.
FIONREAD = {
    "5.10": (True, None, False),
    "6.1": (True, None, False),
    "6.12.107": (False, True, True),
    "6.12.117": (True, None, True),
    "6.18": (False, True, True),
    "7.2": (True, None, True),
}
EXPECTED_PRESENT = (
    "connect.ipv4",
    "connect.ipv6",
    "http.exchange",
    "sk_storage",
    "sockmap.close",
    "sockmap.egress",
    "sockmap.epoll",
    "sockmap.fionread",
    "sockmap.flow_control.bounded",
    "sockmap.flow_control.btf",
    "sockmap.flow_control.shortcut",
    "sockmap.ingress",
    "sockmap.splice",
    "sockmap.split",
    "sockops",
)


def measured() -> tuple[bool, bool | None, bool]:
    numbers = re.split(r"[-+]", os.uname().release)[0].split(".")
    for end in (3, 2):
        if found := FIONREAD.get(".".join(numbers[:end])):
            return found
    pytest.fail(f"nobody measured {os.uname().release}: add it to the table")


@pytest.fixture(scope="module")
def found(probes: Path) -> dict[str, Finding]:
    findings = run_battery(probes, budget_seconds=BUDGET)
    assert [item.capability for item in findings] == sorted(checks())
    return {item.capability: item for item in findings}


@pytest.mark.parametrize("capability", EXPECTED_PRESENT)
def test_present(found: dict[str, Finding], capability: str) -> None:
    finding = found[capability]
    assert finding.verdict is Verdict.PRESENT, finding.evidence
    assert finding.evidence[-1].level is Level.BEHAVIOUR
    assert (finding.consequence, finding.remedy) == ("", "")


def test_the_evidence_says_what_the_verdict_says(found: dict[str, Finding]) -> None:
    """The prober puts evidence of several kinds together by its own rule: it must come out the same."""
    for finding in found.values():
        assert combine(finding.evidence, decided_by=Level.BEHAVIOUR) is finding.verdict


def test_fionread_as_measured(found: dict[str, Finding]) -> None:
    plain, noop, ingress = measured()
    said = {item.summary: item.verdict for item in found["sockmap.fionread"].evidence}
    number = 100 if plain else 0
    verdict = Verdict.PRESENT if plain else Verdict.BROKEN
    assert said[f"FIONREAD, passed data, no verdict program: {number} of 100"] is verdict
    with_noop = said.get("FIONREAD, passed data, no-op stream verdict: 100 of 100")
    assert with_noop is (Verdict.PRESENT if noop else None)
    remedy = "noop-verdict" if noop else "none"
    assert found["sockmap.fionread"].evidence[-1].summary.endswith(f"remedy chosen: {remedy}")
    expected = Verdict.PRESENT if ingress else Verdict.BROKEN
    assert found["sockmap.fionread.ingress"].verdict is expected


def test_splice_out_of_an_enrolled_socket(found: dict[str, Finding]) -> None:
    """The remedy for FIONREAD hides the data from splice; where none is needed splice is right."""
    finding = found["sockmap.splice.read"]
    mended = measured()[1] is not None
    assert finding.verdict is (Verdict.BROKEN if mended else Verdict.PRESENT)
    if mended:
        assert "expected 100, seen no data, though it is there" in finding.evidence[-1].summary
        assert finding.consequence


def test_http_by_both_ways_home(found: dict[str, Finding]) -> None:
    said = " ".join(item.summary for item in found["http.exchange"].evidence)
    assert "6 requests on one connection routed one by one, answers by the gate" in said
    assert "the same with answers straight into the client's receive queue" in said


def test_thirty_times_the_same(probes: Path, found: dict[str, Finding], nothing_left: None) -> None:
    verdicts = {name: item.verdict for name, item in found.items()}
    for turn in range(30):
        again = run_battery(probes, budget_seconds=BUDGET)
        wrong = [item for item in again if item.verdict is not verdicts[item.capability]]
        assert not wrong, f"turn {turn}: {wrong}"


def test_this_process_stays_as_it_was(probes: Path, nothing_left: None) -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    run_battery(probes, budget_seconds=BUDGET)
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


def test_avoided_is_not_tried(probes: Path) -> None:
    findings = run_battery(
        probes, budget_seconds=BUDGET, avoid=frozenset({"sockmap.ingress", "connect"})
    )
    found = {item.capability: item for item in findings}
    shunned = {name for name, item in found.items() if item.verdict is Verdict.INCONCLUSIVE}
    assert shunned == {
        "connect.ipv4",
        "connect.ipv6",
        "sockmap.fionread.ingress",
        "sockmap.flow_control.shortcut",
        "sockmap.home",
        "sockmap.home.end",
        "sockmap.ingress",
        "sockmap.respond",
    }
    for name in shunned:
        assert "known bug" in found[name].evidence[-1].summary
    # The rest of what they have in common with it is tried, without that part.
    said = [item.summary for item in found["http.exchange"].evidence]
    assert found["http.exchange"].verdict is Verdict.PRESENT
    assert not any("receive queue" in line for line in said)
    for name in ("sockmap.epoll", "sockmap.close"):
        assert found[name].verdict is Verdict.PRESENT, found[name]


def test_what_weaker_evidence_rules_out_is_absent(probes: Path) -> None:
    known = frozenset({"map.sockhash", "map.sk_storage", "cgroup.connect4", "cgroup.sockops"})
    findings = run_battery(probes, budget_seconds=BUDGET, known=known)
    absent = {item.capability for item in findings if item.verdict is Verdict.ABSENT}
    assert absent == {
        "connect.ipv6",
        "sockmap.flow_control.btf",
        "sockmap.flow_control.shortcut",
    }


def test_without_objects_nothing_is_concluded(tmp_path: Path, nothing_left: None) -> None:
    findings = run_battery(tmp_path, budget_seconds=BUDGET)
    assert {item.verdict for item in findings} == {Verdict.INCONCLUSIVE}
    assert all("cannot open" in item.evidence[-1].summary for item in findings)


def test_without_time_nothing_is_concluded(probes: Path, nothing_left: None) -> None:
    findings = run_battery(probes, budget_seconds=0.001)
    assert {item.verdict for item in findings} == {Verdict.INCONCLUSIVE}
