# SPDX-License-Identifier: Apache-2.0
"""The newest and the oldest known kernel, booted one after the other over the same disk, beside the other tests.

What is kept in docs/kernels.json must be what these kernels still say. `make matrix` tries all of the
listed kernels, and more on each.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ci.kernels.debian import Kernel, fetch
from ci.matrix.ends import ENDS
from ci.matrix.measure import Row
from ci.matrix.results import read
from ci.matrix.update import check_update
from runtime.probe.run import probe_offline
from tests.matrix.ahead import EMULATOR, directory_of, wait_for

EVIDENCE = Path(__file__).parents[2] / "builder/data/kernels"
# Of what each object needs: one that is new brings them along, and is shown only where a kernel lacks them.
OF_OBJECTS = ("fields.", "helpers.", "kfuncs.", "load.", "maps.", "objects.", "programs.")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not shutil.which(EMULATOR), reason="needs qemu-system-x86_64 (qemu-system-x86)"
    ),
]


@pytest.fixture(scope="module")
def kernels() -> dict[str, Kernel]:
    return dict(zip(ENDS, fetch(list(ENDS.values())), strict=True))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    directory = directory_of(tmp_path_factory.getbasetemp())
    return {name: wait_for(name, directory) for name in ENDS}


@pytest.fixture(params=list(ENDS))
def row(request: pytest.FixtureRequest, rows: dict[str, Row]) -> Row:
    return rows[request.param]


def test_everything_is_as_it_should_be(row: Row) -> None:
    assert row["failures"] == []
    assert sum(each["passed"] for each in row["tests"]) > 10


def test_the_shipped_objects_load(row: Row) -> None:
    loads = {name: found for name, found in row["verdicts"].items() if name.startswith("load.")}
    paths = {name for name in loads if name.startswith(("load.compat.", "load.enhanced."))}
    assert paths
    lacking = {name: found for name, found in loads.items() if found != "present"}
    assert not paths & set(lacking)
    kept: dict[str, str] = next(
        (each["verdicts"] for each in read() if each["suite"] == row["suite"]), {}
    )
    assert lacking == {name: kept.get(name) for name in lacking}, "docs/kernels.json has none of it"


def test_nothing_is_denied_to_root(row: Row) -> None:
    assert [name for name, found in row["verdicts"].items() if found == "denied"] == []


def test_the_prober_says_what_docs_say(row: Row) -> None:
    kept = next((each for each in read() if each["suite"] == row["suite"]), None)
    if kept is None:
        pytest.skip(f"{row['suite']} is not in docs/kernels.json yet: run make matrix")
    assert row["mode"] == kept["mode"]
    assert row["kernel_mode"] == kept["kernel_mode"]
    if row["release"] == kept["release"]:
        told = {name: found for name, found in row["verdicts"].items() if name in kept["verdicts"]}
        assert told == kept["verdicts"], "run `make matrix`"
        new = {name: found for name, found in row["verdicts"].items() if name not in told}
        wrong = [name for name in new if not name.startswith(OF_OBJECTS)]
        assert wrong == [], "run `make matrix`"
        assert {*new.values()} <= {"present"}


def test_a_kernel_update_is_noticed_and_nothing_old_is_believed(rows: dict[str, Row]) -> None:
    assert check_update(rows["newest"], rows["oldest"]) == []


@pytest.mark.parametrize("name", list(ENDS))
def test_the_evidence_kept_in_the_repository_agrees_too(
    name: str, kernels: dict[str, Kernel], rows: dict[str, Row], objects: Path
) -> None:
    evidence = EVIDENCE / f"{kernels[name].release}.btf"
    if not evidence.exists():
        pytest.skip(f"the suite has moved on to {kernels[name].release}: run python -m ci.kernels")
    offline = probe_offline(
        btf=evidence,
        config=evidence.with_suffix(".config"),
        release=kernels[name].release,
        objects=objects,
    )
    decided: dict[str, Any] = {
        finding.capability: str(finding.verdict)
        for finding in offline.findings
        if finding.verdict in ("present", "absent", "broken")
    }
    live = rows[name]["verdicts"]
    assert len(decided) > 10
    assert {capability: live.get(capability) for capability in decided} == decided
