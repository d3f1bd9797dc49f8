# SPDX-License-Identifier: Apache-2.0
"""What continuous integration makes of two builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ci.same import compare, same
from runtime.errors import KmeshError


def report(seconds: float, **images: tuple[str, str]) -> dict[str, Any]:
    found = [{"reference": name, "id": i, "state": state} for name, (i, state) in images.items()]
    return {"images": found, "seconds": seconds}


FIRST = report(80, a=("1", "built"), b=("2", "built"))


def test_a_build_that_changes_nothing_is_told() -> None:
    again = report(9, a=("1", "unchanged"), b=("2", "unchanged"))
    assert same(FIRST, again) == "2 images unchanged in 9 s (80 s before)"


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (report(9, a=("3", "unchanged"), b=("2", "unchanged")), "a is another image .* 1, then 3"),
        (report(9, a=("1", "built"), b=("2", "unchanged")), "a was built the second time"),
        (report(9, a=("1", "unchanged")), "b is another image .* 2, then missing"),
    ],
)
def test_a_build_that_changes_something_is_an_error(again: dict[str, Any], said: str) -> None:
    with pytest.raises(KmeshError, match=said):
        same(FIRST, again)


def test_words_among_the_results_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "1").write_text(f"setup: installing\n{json.dumps(FIRST)}")
    outcome = CliRunner().invoke(compare, [str(tmp_path / "1"), str(tmp_path / "1")])
    assert isinstance(outcome.exception, KmeshError)
    assert "more than JSON" in str(outcome.exception)
