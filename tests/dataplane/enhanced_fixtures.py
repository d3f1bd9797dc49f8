# SPDX-License-Identifier: Apache-2.0
"""The enhanced path's objects, the gate with sanitizers, and stages to try them on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.compile.gate import BASIC, SANITIZE, include_options
from runtime.compile.native import GATE, compile_program
from runtime.compile.tree import compile_tree
from tests.dataplane.enhanced_stage import Stage
from tests.dataplane.redirects import skip_where_redirects_are_broken


@pytest.fixture(scope="session")
def all_objects(checkout: Path) -> Path:
    """The compiled objects, with those that no image carries yet."""
    target = checkout / "build" / "all"
    if shutil.which("clang"):
        compile_tree(checkout / "bpf", target, unshipped=True)
    return target if target.exists() else checkout / "build" / "bpf"


@pytest.fixture(scope="session")
def gate_program(checkout: Path) -> Path:
    """The gate, which ends with a report at the first wrong access; as shipped without a compiler."""
    if not shutil.which("gcc"):
        return checkout / "build/bin" / GATE.name
    flags = (*BASIC, *SANITIZE, *include_options(checkout))
    program = replace(GATE, name=f"{GATE.name}-sanitized", flags=flags)
    compile_program(program, checkout / "build/gate")
    return checkout / "build/gate" / program.name


@pytest.fixture(scope="session")
def shipped_gate(checkout: Path) -> Path:
    """The gate as users have it: sanitizers take memory of their own, and keep what was given back."""
    if shutil.which("gcc"):
        compile_program(GATE, checkout / "build/bin")
    return checkout / "build/bin" / GATE.name


@pytest.fixture(scope="module")
def shared_stage(all_objects: Path, gate_program: Path) -> Iterator[Stage]:
    with Stage(all_objects, gate_program) as made:
        yield made


@pytest.fixture(scope="module")
def short_cut_stage(all_objects: Path, gate_program: Path) -> Iterator[Stage]:
    """One whose endpoints are short-cut past TCP: to be a module's `shared_stage`."""
    skip_where_redirects_are_broken()
    with Stage(all_objects, gate_program, accelerated=True) as made:
        yield made


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    """The module's stage, with nothing on it."""
    shared_stage.renew()
    return shared_stage


@pytest.fixture
def routed(stage: Stage) -> Stage:
    """A stage with backends a and b, to which /a and /b lead."""
    stage.serve("a", "b")
    stage.route()
    return stage
