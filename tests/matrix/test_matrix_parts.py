# SPDX-License-Identifier: Apache-2.0
"""The matrix's own parts, without a boot: what is tried, what counts as a failure, what is written down."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ci.kernels.debian import Kernel, wanted
from ci.matrix import accelerator
from ci.matrix.agree import agreement
from ci.matrix.boot import Outcome, _qemu
from ci.matrix.headers import SCENARIO as HEADERS
from ci.matrix.inside.expect import complaints
from ci.matrix.inside.scenarios import SCENARIOS, Expected, Scenario
from ci.matrix.inside.suites import count
from ci.matrix.measure import failures, parse
from ci.matrix.plan import QUICK_SCENARIOS, SKIPS, chosen, stages, suites, unexpected_skips
from ci.matrix.results import DOCUMENT, TEMPLATE, document, kept, merged, read
from ci.matrix.update import differences
from runtime.errors import KmeshError
from runtime.probe.run import probe, probe_offline

KERNEL = Kernel(release="6.1.0", image=Path("/x"), config=Path("/y"))
GOOD: dict[str, Any] = {
    "mode": "compat",
    "offline": {"differences": []},
    "served": {"mode": "compat", "answers": {"blue": 1, "green": 1}, "status": 0, "left": []},
    "suite": "bullseye-security",
    "tests": [{"path": "compat", "failed": [], "skipped": {}, "tail": ""}],
    "told": [{"stage": "probe"}],
    "degraded": [{"scenario": "no-btf", "complaints": []}],
}


SUITES = [each.suite for each in wanted()]


@pytest.mark.parametrize(("with_", "times"), [("tcg", 1), ("kvm", 0)])
def test_only_an_emulated_kernel_can_have_a_time_of_its_own(with_: str, times: int) -> None:
    argv = _qemu(KERNEL, Path("/i"), Path("/r"), parameters="", accelerator=with_)
    assert argv.count("-icount") == times


def test_the_document_is_what_the_results_say() -> None:
    text = document(read(), TEMPLATE.read_text(), listed=SUITES)
    assert DOCUMENT.read_text() == text, "run `make kernels-doc`"


def test_each_listed_kernel_has_its_row_or_is_named_as_lacking_one() -> None:
    measured = [row["suite"] for row in read()]
    for suite in set(SUITES) - set(measured):
        assert suite in DOCUMENT.read_text()
    assert [suite for suite in SUITES if suite in measured] == measured  # in the list's order


def test_every_kept_row_was_a_good_one() -> None:
    for row in read():
        assert row["served"] == row["mode"]
        assert row["offline_decided"] > 10
        assert all(each["passed"] for each in row["tests"].values())
        words = {word.partition("=")[2] for word in stages(row["depth"]) if "degrade=" in word}
        assert set(row["degraded"]) in (words, {*words, HEADERS})  # of a boot of its own


def test_a_new_row_takes_the_place_of_the_old() -> None:
    rows = [{"suite": "a", "release": "1"}, {"suite": "b", "release": "1"}]
    new = merged(rows, [{"suite": "a", "release": "2"}], order=["b", "a"])
    assert [(row["suite"], row["release"]) for row in new] == [("b", "1"), ("a", "2")]


def test_suites_name_tests_that_are_there(checkout: Path) -> None:
    for depth in ("quick", "full"):
        assert suites(depth)
        for suite in suites(depth):
            assert all((checkout / test).exists() for test in suite.tests)


def test_a_listed_test_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("compat full tests/dataplane/test_dataplane_*.py  # all\n")
    [suite] = suites("full", path=listed)
    assert "tests/dataplane/test_dataplane_connect.py" in suite.tests
    listed.write_text("compat full tests/dataplane/test_nothing_*.py\n")
    with pytest.raises(KmeshError, match="no tests/dataplane/test_nothing_"):
        suites("full", path=listed)


def test_skipped_is_only_what_is_listed_for_that_kernel(tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("# why\nold it is old\nold not told\n")
    skipped = {"it is old: 5.10": 2, "other": 1}
    assert unexpected_skips(skipped, "old", path=listed) == {"other": 1}
    assert unexpected_skips(skipped, "new", path=listed) == skipped


def test_each_kernel_that_may_skip_is_listed() -> None:
    lines = [line for line in SKIPS.read_text().splitlines() if line and line[0] != "#"]
    assert {line.split()[0] for line in lines} <= set(SUITES)


def test_the_suites_of_a_path_are_one_line_of_the_results() -> None:
    suite = {"path": "compat", "passed": 2, "skipped": {"why": 1}}
    row = {
        **dict.fromkeys(("suite", "release", "depth", "version", "mode", "kernel_mode"), ""),
        "served": {"mode": ""},
        "offline": {"decided": 0},
        "verdicts": {},
        "degraded": [],
        "tests": [suite, {"path": "compat", "passed": 3, "skipped": {}}],
    }
    assert kept(row)["tests"] == {"compat": {"passed": 5, "skipped": 1, "reasons": ["why"]}}


def test_what_lasts_is_tried_last() -> None:
    for depth in ("quick", "full"):
        order = [SCENARIOS[word[8:]] for word in stages(depth) if word.startswith("degrade=")]
        lasting = [scenario.lasting for scenario in order]
        assert lasting == sorted(lasting)
    assert set(QUICK_SCENARIOS) <= set(SCENARIOS)


def test_kernels_are_chosen_by_suite_or_release() -> None:
    assert chosen(wanted(), []) == wanted()
    assert [each.suite for each in chosen(wanted(), ["6.12", "bullseye"])] == [
        "bullseye-security",
        "trixie",
    ]
    assert [each.suite for each in chosen(wanted(), ["6.1"])] == ["bookworm-security"]
    with pytest.raises(KmeshError, match=r"no kernel is called 4\.19"):
        chosen(wanted(), ["4.19"])


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            ("offline", "differences"),
            ["x: offline present, live absent"],
            "offline verdict differs",
        ),
        (("served", "mode"), "none", "kmesh run chose none"),
        (("served", "answers"), {"blue": 2}, "did not serve well"),
        (("served", "status"), 1, "did not serve well"),
        (("served", "left"), ["/sys/fs/bpf/kmesh"], "did not serve well"),
        (("tests", 0, "failed"), ["a::b"], "a::b failed"),
        (("tests", 0, "skipped"), {"no IPv6": 3}, "3 tests skipped: no IPv6"),
        (("degraded", 0, "complaints"), ["btf is present"], "no-btf: btf is present"),
    ],
)
def test_each_thing_that_goes_wrong_is_a_failure(path: Any, value: Any, said: str) -> None:
    row = copy.deepcopy(GOOD)
    assert failures(row) == []
    place = row
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert any(said in line for line in failures(row))


def test_a_contradiction_between_offline_and_live_is_named(objects: Path, checkout: Path) -> None:
    btf = min((checkout / "builder/data/kernels").glob("6.1.*.btf"))
    offline = probe_offline(
        btf=btf, config=btf.with_suffix(".config"), release=btf.stem, objects=objects
    )
    live = {
        "findings": [
            {"capability": each.capability, "verdict": str(each.verdict)}
            for each in offline.findings
        ]
    }
    assert agreement(offline, live).differences == ()
    assert agreement(offline, live).decided > 10
    found = next(each for each in live["findings"] if each["capability"] == "jit")
    found["verdict"] = "absent"
    assert agreement(offline, live).differences == ("jit: offline present, live absent",)
    live["findings"].remove(found)
    assert "nothing found out" in agreement(offline, live).differences[0]


def test_what_scenarios_expect_is_looked_at(objects: Path) -> None:
    looked_at = {finding.capability for finding in probe(objects=objects, quick=True).findings}
    for name, scenario in SCENARIOS.items():
        assert set(scenario.expected) <= looked_at, name
        if scenario.otherwise:
            assert set(scenario.otherwise.expected) <= looked_at, name
            assert scenario.otherwise.title == scenario.title


SCENARIO = Scenario(
    title="",
    apply=lambda: None,
    expected={"btf": Expected(verdict="absent", reason="vmlinux", remedy="CONFIG")},
    mode="none",
    refusal="btf is absent",
)
FINDING = {
    "capability": "btf",
    "verdict": "absent",
    "evidence": [{"summary": "no vmlinux"}],
    "remedy": "CONFIG_X",
    "consequence": "less",
}
REFUSED = {"mode": "none", "status": 1, "log": "error: btf is absent\nhint: boot another"}


def report(**change: Any) -> dict[str, Any]:
    return {"mode": {"mode": "none", "reasons": []}, "findings": [{**FINDING, **change}]}


def test_a_scenario_that_is_met_has_no_complaints() -> None:
    assert complaints(SCENARIO, report(), REFUSED) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "denied"}, "is denied, not absent"),
        ({"evidence": []}, "no reason says"),
        ({"remedy": ""}, "the remedy does not say"),
        ({"consequence": ""}, "what it costs"),
        ({"capability": "other"}, "nothing was found out"),
    ],
)
def test_each_wrong_word_of_the_prober_is_a_complaint(change: Any, said: str) -> None:
    assert any(said in line for line in complaints(SCENARIO, report(**change), REFUSED))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": 0}, "status 0"),
        ({"log": "error: something\nhint: x"}, "the refusal does not say"),
        ({"log": "btf is absent hint Traceback"}, "a traceback"),
        ({"log": "btf is absent"}, "no hint"),
        ({"mode": "compat", "answers": {}, "left": []}, "mode compat, not none"),
    ],
)
def test_each_unclean_refusal_is_a_complaint(change: Any, said: str) -> None:
    assert any(said in line for line in complaints(SCENARIO, report(), {**REFUSED, **change}))


def test_a_serving_scenario_must_serve_and_leave_nothing() -> None:
    scenario = Scenario(title="", apply=lambda: None, mode="compat")
    told = {"mode": {"mode": "compat", "reasons": []}, "findings": []}
    good = {
        "mode": "compat",
        "answers": {"blue": 1, "green": 1},
        "status": 0,
        "left": [],
        "log": "",
    }
    assert complaints(scenario, told, good) == []
    for change in ({"answers": {"blue": 2}}, {"status": 1}, {"left": ["/x"]}):
        assert len(complaints(scenario, told, {**good, **change})) == 1


FIRST = {"mode": "compat", "managed": ["/a"], "log": ""}
AGAIN = {
    "mode": "compat",
    "found": ["probe-cache.json", "state.json"],
    "noted": ["/a"],
    "managed": [],
    "probe_cached": False,
    "adopted": False,
    "answers": {"blue": 1, "green": 1},
    "previous": {"release": "6.1", "kernel_changed": True},
    "log": "NEW KERNEL: the last run was on 6.1, this is 7.2",
}
UNABLE = {
    "mode": "none",
    "status": 1,
    "log": "MODE CHANGED since the last run: compat, now none",
}


def update(again: Any = AGAIN, unable: Any = UNABLE, first: Any = FIRST) -> list[str]:
    return list(differences(first, again, unable, releases=("6.1", "7.2")))


def test_an_update_that_is_noticed_and_survived_is_right() -> None:
    assert update() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"probe_cached": True}, "was believed"),
        ({"adopted": True}, "taken to be serving"),
        ({"managed": ["/a"]}, "taken to be managed"),
        ({"answers": {"blue": 2}}, "not both backends"),
        ({"previous": None}, "not noticed"),
        ({"log": ""}, "not announced"),
        ({"found": ["state.json"]}, "nothing was tried"),
    ],
)
def test_each_blind_belief_after_an_update_is_named(change: Any, said: str) -> None:
    assert any(said in line for line in update(again={**AGAIN, **change}))


def test_a_change_of_mode_must_be_announced() -> None:
    assert any("change of mode" in line for line in update(unable={**UNABLE, "log": ""}))
    assert any("not refused" in line for line in update(unable={**UNABLE, "mode": "compat"}))
    assert any("served nothing" in line for line in update(first={"mode": "none", "log": "x"}))


def test_an_exception_in_the_guest_is_an_error_here() -> None:
    with pytest.raises(KmeshError, match="stage probe failed"):
        parse(Outcome(status=1, output='{"stage": "probe", "error": "boom"}\n', console=""))
    with pytest.raises(KmeshError, match="ended with status 0"):
        parse(Outcome(status=0, output="", console="panic"))


JUNIT = (
    '<testsuites><testsuite><testcase classname="a" name="b"/>'
    '<testcase classname="a" name="c"><skipped message="no v6"/></testcase>{}</testsuite></testsuites>'
)


def test_outcomes_are_counted_and_an_empty_run_is_a_failure() -> None:
    good = count(JUNIT.format(""), status=0, output="")
    assert good == {"passed": 1, "skipped": {"no v6": 1}, "failed": [], "tail": ""}
    failed = '<testcase classname="a" name="d"><failure/></testcase>'
    assert count(JUNIT.format(failed), status=1, output="x")["failed"] == ["a::d"]
    assert count("", status=4, output="usage")["failed"] == ["pytest ended with status 4"]


def test_kvm_is_used_once_it_has_proved_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KMESH_CACHE", str(tmp_path))
    monkeypatch.delenv("KMESH_MATRIX_ACCELERATOR", raising=False)
    device = tmp_path / "kvm"
    monkeypatch.setattr(accelerator, "_DEVICE", device)
    assert accelerator.accelerator(KERNEL, prove=lambda _: True) == "tcg"  # there is none
    device.touch()
    assert accelerator.accelerator(KERNEL) == "tcg"  # not proved
    tried: list[Kernel] = []

    def fails(kernel: Kernel) -> bool:
        tried.append(kernel)
        return False

    for _ in range(2):
        assert accelerator.accelerator(KERNEL, prove=fails) == "tcg"
    assert tried == [KERNEL]
    other = Kernel(release="7.2", image=Path("/x"), config=Path("/y"))
    assert accelerator.accelerator(other, prove=lambda _: True) == "kvm"
    assert accelerator.accelerator(other) == "kvm"
    monkeypatch.setenv("KMESH_MATRIX_ACCELERATOR", "tcg")
    assert accelerator.accelerator(other) == "tcg"
