# SPDX-License-Identifier: Apache-2.0
"""The mode is a pure function of the verdicts."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.probe.mode import NEEDS, choose, lacking, needed_by
from runtime.probe.verdict import Evidence, Finding, Level, Verdict

NAMES = sorted(
    name.replace("*", "demo")
    for name in set(
        chain.from_iterable((n,) if isinstance(n, str) else n for n in NEEDS["enhanced"])
    )
)


def findings(**verdicts: Verdict) -> list[Finding]:
    """Everything present but what is said ("." is written "__")."""
    said = {name.replace("__", "."): verdict for name, verdict in verdicts.items()}
    return [
        Finding(
            capability=name,
            verdict=said.get(name, Verdict.PRESENT),
            evidence=(
                Evidence(
                    level=Level.LOAD, verdict=said.get(name, Verdict.PRESENT), summary="because"
                ),
            ),
        )
        for name in NAMES
    ]


def test_all_present_is_enhanced() -> None:
    decision = choose(findings())
    assert (decision.mode, decision.kernel_mode) == ("enhanced", "enhanced")
    assert decision.reasons == ()
    assert decision.refused == {}


def test_without_enhanced_objects_it_is_compat_and_the_kernel_is_not_to_blame() -> None:
    decision = choose(findings(objects__enhanced=Verdict.ABSENT))
    assert (decision.mode, decision.kernel_mode) == ("compat", "enhanced")
    assert decision.reasons == ("enhanced: objects.enhanced is absent (because)",)


def test_a_broken_primitive_makes_compat_of_the_kernel() -> None:
    decision = choose(findings(sockmap__egress=Verdict.BROKEN))
    assert (decision.mode, decision.kernel_mode) == ("compat", "compat")


def test_of_alternatives_one_is_enough() -> None:
    one = findings(sockmap__flow_control__btf=Verdict.ABSENT)
    assert choose(one).mode == "enhanced"
    both = findings(
        sockmap__flow_control__btf=Verdict.ABSENT, sockmap__flow_control__bounded=Verdict.BROKEN
    )
    decision = choose(both)
    assert decision.mode == "compat"
    assert len(decision.refused["enhanced"]) == 2


def test_denied_stops_the_mode_and_not_the_kernel() -> None:
    decision = choose(findings(capability__bpf=Verdict.DENIED, load__compat__demo=Verdict.DENIED))
    assert (decision.mode, decision.kernel_mode) == ("none", "enhanced")
    assert set(decision.refused) == {"compat", "enhanced"}
    assert decision.reasons[0].startswith("compat, enhanced: ")


def test_that_trying_is_denied_does_not_stop_what_loads() -> None:
    decision = choose(findings(connect__ipv4=Verdict.DENIED, objects__enhanced=Verdict.ABSENT))
    assert decision.mode == "compat"
    assert decision.unverified == ("connect.ipv4",)


def test_open_questions_do_not_stop_and_are_told() -> None:
    decision = choose(findings(connect__ipv4=Verdict.INCONCLUSIVE, cgroup2=Verdict.INCONCLUSIVE))
    assert decision.mode == "enhanced"
    assert set(decision.unverified) == {"connect.ipv4", "cgroup2"}


@pytest.mark.parametrize("name", [name for name in NAMES if "enhanced" in name])
def test_each_need_of_enhanced_counts(name: str) -> None:
    decision = choose(findings(**{name.replace(".", "__"): Verdict.ABSENT}))
    assert decision.mode == "compat"


@pytest.mark.parametrize("verdict", [Verdict.ABSENT, Verdict.BROKEN])
@pytest.mark.parametrize("name", ["bpf", "cgroup2", "bpffs", "helpers.compat.demo", "connect.ipv4"])
def test_each_need_of_compat_counts(name: str, verdict: Verdict) -> None:
    decision = choose(findings(**{name.replace(".", "__"): verdict}))
    assert decision.mode == "none"
    assert any(name in reason for reason in decision.refused["compat"])


@given(st.lists(st.sampled_from(list(Verdict)), min_size=len(NAMES), max_size=len(NAMES)))
def test_a_mode_is_refused_or_chosen_and_worse_verdicts_never_better_it(
    verdicts: list[Verdict],
) -> None:
    said = {name.replace(".", "__"): verdict for name, verdict in zip(NAMES, verdicts, strict=True)}
    decision = choose(findings(**said))
    assert (decision.mode in decision.refused) is False
    if decision.mode != "enhanced":
        assert decision.reasons
    rank = {"none": 0, "compat": 1, "enhanced": 2}
    worse = choose(findings(**{**said, "bpf": Verdict.ABSENT}))
    assert rank[worse.mode] <= rank[decision.mode]
    assert rank[decision.mode] <= rank[decision.kernel_mode] or decision.mode == "none"


def test_needed_by() -> None:
    assert needed_by("load.compat.connect4") == ("compat", "enhanced")
    assert needed_by("sockmap.flow_control.bounded") == ("enhanced",)
    assert needed_by("jit") == ()


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.DENIED])
def test_what_the_battery_could_not_try_is_not_taken_for_sound(verdict: Verdict) -> None:
    """There the enhanced path loses data on a kernel that only looks fine."""
    untried = findings(sockmap__close=verdict)
    assert choose(untried).mode == "enhanced"
    decision = choose(untried, tried=True)
    assert decision.mode == "compat"
    assert decision.reasons == (f"enhanced: sockmap.close is {verdict} (because)",)
    assert choose(findings(connect__ipv4=verdict), tried=True).mode == "enhanced"
    one = findings(sockmap__flow_control__btf=verdict)
    assert choose(one, tried=True).mode == "enhanced"


def test_what_runs_beside_the_paths_stops_no_path_but_itself() -> None:
    said = Evidence(level=Level.NAME, verdict=Verdict.ABSENT, summary="gone")
    broken = Finding(
        capability="helpers.telemetry.telemetry", verdict=Verdict.ABSENT, evidence=(said,)
    )
    assert choose([*findings(), broken]).mode == "enhanced"
    assert lacking([*findings(), broken], "telemetry") == (
        "helpers.telemetry.telemetry is absent (gone)"
    )
    assert lacking([*findings(), broken], "authorize") == ""
