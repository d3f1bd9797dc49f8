# SPDX-License-Identifier: Apache-2.0
"""Which paths are started, and what happens when one does not start."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime.errors import KmeshError
from runtime.launch.choose import ImpossibleError, candidates
from runtime.launch.start import Demotion, start_best


@pytest.mark.parametrize(
    ("wanted", "mode", "paths"),
    [
        ("auto", "enhanced", ("enhanced", "compat")),
        ("auto", "compat", ("compat",)),
        ("enhanced", "enhanced", ("enhanced",)),
        ("compat", "enhanced", ("compat",)),
        ("compat", "compat", ("compat",)),
    ],
)
def test_the_best_comes_first_and_what_is_forced_has_no_second(
    wanted: str, mode: str, paths: tuple[str, ...]
) -> None:
    assert candidates(wanted, mode=mode, reasons=()) == paths


@pytest.mark.parametrize("wanted", ["auto", "compat", "enhanced"])
def test_where_nothing_can_run_the_reasons_are_told(wanted: str) -> None:
    with pytest.raises(ImpossibleError, match="no path can run on this kernel: no BTF; no root"):
        candidates(wanted, mode="none", reasons=("no BTF", "no root"))


def test_what_is_forced_and_cannot_run_is_an_error_with_its_reasons() -> None:
    with pytest.raises(
        ImpossibleError, match=r"--mode enhanced.*cannot run here: no objects"
    ) as caught:
        candidates("enhanced", mode="compat", reasons=("no objects",))
    assert "compat" in (caught.value.hint or "")


def opener(**failing: str) -> Callable[[str], str]:
    def open_path(name: str) -> str:
        if name in failing:
            raise KmeshError(failing[name])
        return f"<{name}>"

    return open_path


def test_a_path_that_fails_to_start_gives_way_and_is_remembered() -> None:
    started = start_best(("enhanced", "compat"), opener(enhanced="verifier says no"))
    assert (started.name, started.path) == ("compat", "<compat>")
    assert started.demotions == (Demotion("enhanced", "verifier says no"),)


def test_the_first_that_starts_is_the_only_one() -> None:
    started = start_best(("enhanced", "compat"), opener())
    assert (started.name, started.demotions) == ("enhanced", ())


def test_when_none_starts_every_reason_is_told() -> None:
    with pytest.raises(KmeshError, match=r"enhanced: one; compat: two"):
        start_best(("enhanced", "compat"), opener(enhanced="one", compat="two"))


def test_what_fails_for_one_cause_is_said_once() -> None:
    reasons = [f"compat: load.{name} is denied (no right)" for name in ("a", "b", "c")]
    reasons.append("compat: bpffs is absent (not mounted)")
    with pytest.raises(ImpossibleError) as raised:
        candidates("auto", mode="none", reasons=reasons)
    assert "compat: load.a and 2 more are denied (no right); compat: bpffs is absent" in str(
        raised.value
    )
