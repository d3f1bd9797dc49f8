# SPDX-License-Identifier: Apache-2.0
"""What the prober's report tells the launcher about how objects are to be opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runtime.bpf import objects as bpf_objects
from runtime.launch.verdict import Probing, judge
from runtime.probe.facts import Facts
from runtime.probe.mode import ModeDecision
from runtime.probe.report import Report


@pytest.fixture(autouse=True)
def nothing_stands_in() -> Iterator[None]:
    yield
    bpf_objects.relocate_against(None)


def probing(**more: Any) -> Probing:
    """A probe that has ended with this in its report."""
    report = Report(
        facts=Facts(release="1.2"),
        findings=(),
        bugs=(),
        mode=ModeDecision(mode="compat", reasons=(), kernel_mode="compat"),
        duration_ms=1,
        taken_at="",
        kmesh_version="",
        **more,
    )
    return cast("Probing", SimpleNamespace(objects=Path("/objects"), report=lambda: report))


@pytest.mark.parametrize("stand_in", [Path("/run/kmesh/fields.btf"), None])
def test_objects_are_opened_with_what_the_prober_tried_them_with(
    stand_in: Path | None, tmp_path: Path
) -> None:
    bpf_objects.relocate_against(Path("/of/another/run"))
    judge(
        "auto",
        overrides=frozenset(),
        scratch=tmp_path,
        probing=probing(stand_in=stand_in),
        interruptible=nullcontext,
    )
    assert bpf_objects._stand_in == stand_in
