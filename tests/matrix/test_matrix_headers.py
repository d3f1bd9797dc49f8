# SPDX-License-Identifier: Apache-2.0
"""The poorer host that takes a richer root: no BTF, but headers and bcc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ci.matrix.__main__ as matrix
from ci.kernels.debian import Kernel, Wanted
from ci.matrix.headers import SCENARIO, _merge_usr, keep
from ci.matrix.inside.scenarios import SCENARIOS
from ci.matrix.plan import stages
from runtime.errors import KmeshError


def test_it_is_not_among_what_every_root_can_be_made_into() -> None:
    assert SCENARIOS[SCENARIO].headers
    assert f"degrade={SCENARIO}" not in [*stages("full"), *stages("quick")]
    assert "degrade=no-btf" in stages("full")


def test_nothing_takes_the_place_of_the_guests_links(tmp_path: Path) -> None:
    modules = tmp_path / "lib/modules/1.2"
    modules.mkdir(parents=True)
    (modules / "build").symlink_to("/usr/src/linux-headers-1.2")
    _merge_usr(tmp_path)
    assert not (tmp_path / "lib").exists()
    assert (tmp_path / "usr/lib/modules/1.2/build").readlink() == Path("/usr/src/linux-headers-1.2")
    _merge_usr(tmp_path)  # a package that has moved to /usr already


LISTED = Wanted("trixie", ("linux-image-6.12.*",))
KERNEL = Kernel(release="6.12.1", image=Path("/x"), config=Path("/y"))
ROW = {"scenario": SCENARIO, "title": "headers", "ran": {"mode": "compat"}, "complaints": []}
SERVED = {"mode": "compat", "answers": {"blue": 1, "green": 1}, "status": 0}


@pytest.mark.parametrize(("depth", "boots"), [("full", 1), ("quick", 0)])
def test_make_matrix_boots_each_kernel_with_its_headers_too(
    depth: str, boots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted: list[Wanted] = []

    def run_on(listed: Wanted) -> dict[str, Any]:
        booted.append(listed)
        return {**ROW, "complaints": ["btf is present"]}

    measured: dict[str, Any] = {
        "release": "6.12.1",
        "suite": "trixie",
        "mode": "compat",
        "served": SERVED,
        "tests": [],
        "told": [],
        "degraded": [],
        "failures": [],
        "offline": {"differences": [], "decided": 0},
    }
    monkeypatch.setattr(matrix, "_DETAILS", tmp_path)
    monkeypatch.setattr(matrix, "measure", lambda *_words, **_more: measured)
    monkeypatch.setattr("ci.matrix.headers.run_on", run_on)
    row = matrix._one(KERNEL, LISTED, with_="tcg", depth=depth, disk=tmp_path, also=())
    assert booted == [LISTED] * boots
    assert row["failures"] == [f"{SCENARIO}: btf is present"] * boots


def test_the_outcome_is_kept_beside_what_is_there() -> None:
    old: dict[str, Any] = {
        "suite": "trixie",
        "degraded": {"no-btf": {"title": "no BTF", "mode": "compat"}},
    }
    other: dict[str, Any] = {"suite": "sid", "degraded": {}}
    kept, untouched = keep([old, other], "trixie", ROW)
    assert kept["degraded"] == {**old["degraded"], SCENARIO: {"title": "headers", "mode": "compat"}}
    assert untouched == other
    assert list(old["degraded"]) == ["no-btf"], "what was read is not changed"
    with pytest.raises(KmeshError, match="nothing is kept of bullseye"):
        keep([old], "bullseye", ROW)
