# SPDX-License-Identifier: Apache-2.0
"""A part of the matrix carried out again: what is taken, in which boots, and what becomes of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ci.matrix.__main__ as matrix
from ci.kernels.debian import Kernel, Wanted
from ci.matrix import headers, measure
from ci.matrix.boot import Outcome
from ci.matrix.headers import SCENARIO
from ci.matrix.measure import combined
from ci.matrix.plan import SKIPS, boots, stages
from ci.matrix.select import Selection
from runtime.errors import KmeshError

KERNEL = Kernel(release="6.12.1", image=Path("/x"), config=Path("/y"))
LISTED = Wanted("trixie", ("linux-image-6.12.1-cloud-amd64",))
SKIP = next(  # a suite, and what may be skipped on it
    line.split(maxsplit=1) for line in SKIPS.read_text().splitlines() if not line.startswith("#")
)
LAST: dict[str, Any] = {
    "suite": SKIP[0],
    "told": [
        {"stage": "probe"},
        {"stage": "tests=compat,a", "failed": [], "skipped": {SKIP[1]: 1}},
        {"stage": "tests=compat,b", "failed": [], "skipped": {"no IPv6": 1}},
        {"stage": "tests=enhanced,c", "failed": ["c::d"], "skipped": {}},
        {"stage": "degrade=no-btf", "complaints": []},
        {"stage": "degrade=lockdown", "complaints": ["mode compat"]},
        {"stage": "degrade=no-cgroup2", "error": "boom"},
    ],
}


def taken(*words: str) -> set[str]:
    take = Selection(words, LAST)
    return {each["stage"] for each in LAST["told"] if take(each["stage"])}


def test_without_a_word_all_is_taken_and_with_one_what_has_it_in_its_name() -> None:
    assert taken() == {each["stage"] for each in LAST["told"]}
    assert taken("compat") == {"tests=compat,a", "tests=compat,b"}
    assert taken("enhanced", "no-btf") == {"tests=enhanced,c", "degrade=no-btf"}


def test_what_failed_can_be_taken_alone() -> None:
    wrong = {"tests=compat,b", "tests=enhanced,c", "degrade=lockdown", "degrade=no-cgroup2"}
    assert taken("failed") == wrong
    assert taken("failed", "probe") == {*wrong, "probe"}


def test_what_was_never_tried_is_taken_in_any_case() -> None:
    take = Selection(["no-btf"], LAST)
    assert take("tests=enhanced,new")
    assert not take("tests=enhanced,c")


@pytest.mark.parametrize("depth", ["quick", "full"])
def test_no_stage_is_in_two_boots_but_the_prober_before_tests(depth: str) -> None:
    parts = boots(depth, also=["update-first"])
    for part in parts:
        assert part[0] == "probe" or not any(word.startswith("tests=") for word in part)
    rest = [word for part in parts for word in part if word != "probe"]
    assert len(rest) == len(set(rest))
    assert {*rest, "probe"} == {*stages(depth), "update-first"}
    assert (len(parts) == 1) == (depth == "quick")


def test_boots_with_nothing_to_do_are_left_out() -> None:
    assert boots("full", only=lambda stage: "no-btf" in stage) == [["degrade=no-btf"]]
    [part] = boots("full", only=lambda stage: "enhanced" in stage)
    assert part[0] == "probe"
    assert all(word.startswith("tests=enhanced,") for word in part[1:])


def test_the_latest_word_counts_and_of_one_run_the_first() -> None:
    old = [{"stage": "probe", "n": 1}, {"stage": "serve", "n": 1}, {"stage": "gone", "n": 1}]
    new = [{"stage": "probe", "n": 2}, {"stage": "probe", "n": 3}]
    told = combined(old, new, order=["probe", "serve", "never"])
    assert [(each["stage"], each["n"]) for each in told] == [("probe", 2), ("serve", 1)]


def test_a_boot_that_ends_early_fails_for_what_it_did_not_come_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = json.dumps({"stage": "tests=a", "seconds": 1, "passed": 1, "failed": []}) + "\n"
    ended = Outcome(status=137, output=output, console="Out of memory")
    monkeypatch.setattr(measure, "inside", lambda *_words, **_how: ended)
    good, bad = measure._told(KERNEL, ["tests=a", "tests=b"])
    assert good["passed"] == 1
    assert bad["stage"] == "tests=b"
    assert "Out of memory" in bad["error"]

    def hangs(*_words: object, **_how: object) -> Outcome:
        raise KmeshError("did not finish")

    monkeypatch.setattr(measure, "inside", hangs)
    assert [each["error"] for each in measure._told(KERNEL, ["x", "y"])] == ["did not finish"] * 2


def row(**change: Any) -> dict[str, Any]:
    served = {"mode": "compat", "answers": {"blue": 1, "green": 1}, "status": 0, "left": []}
    good = {"suite": "trixie", "mode": "compat", "served": served, "offline": {"differences": []}}
    return {**good, "tests": [], "told": [], "degraded": [], "failures": [], **change}


def test_what_the_boot_with_headers_told_is_kept_where_it_is_not_taken_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = f"degrade={SCENARIO}"
    old = {"stage": stage, "scenario": SCENARIO, "complaints": []}
    last = {"suite": "trixie", "told": [old]}
    new = {**old, "complaints": ["btf is present"]}
    monkeypatch.setattr(headers, "run_on", lambda _listed: new)
    assert headers.beside(row(), LISTED, take=Selection(["compat"], last))["degraded"] == [old]
    again = headers.beside(row(), LISTED, take=Selection(["headers"], last))
    assert again["degraded"] == again["told"] == [new]
    assert again["failures"] == [f"{SCENARIO}: btf is present"]

    def fails(_listed: Wanted) -> dict[str, Any]:
        raise KmeshError("no mirror")

    monkeypatch.setattr(headers, "run_on", fails)
    assert headers.beside(row(), LISTED, take=Selection())["failures"] == [f"{stage}: no mirror"]


def test_a_part_of_what_other_objects_told_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    details = tmp_path / "6.12.1.json"
    monkeypatch.setattr(matrix, "_build", lambda: "these")
    with pytest.raises(KmeshError, match="not tried full before"):
        matrix._last(details, "full")
    details.write_text(json.dumps(row(depth="full", build="others")))
    with pytest.raises(KmeshError, match="not tried full before"):
        matrix._last(details, "full")
    details.write_text(json.dumps(row(depth="full", build="these")))
    assert matrix._last(details, "full")["told"] == []
    with pytest.raises(KmeshError, match="not tried quick before"):
        matrix._last(details, "quick")
