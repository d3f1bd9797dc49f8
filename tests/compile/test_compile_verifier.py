# SPDX-License-Identifier: Apache-2.0
"""How far every program of the compat path is from the verifier's limit, whichever clang compiled it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from runtime.bpf.info import VERIFIER_LIMIT, loaded_program
from runtime.bpf.objects import BpfObject
from runtime.compile import compile_tree
from runtime.objects.inspect import inspect_object
from runtime.probe.checks.loading import _prepare
from runtime.probe.run import probe
from runtime.tables import layout, policy_layout, telemetry_layout
from runtime.tables.describe import describe

pytestmark = [pytest.mark.root, pytest.mark.slow]

# The oldest that Debian 12 has, and the one that objects are shipped from (Debian's `clang`), each
# with what a program may cost the verifier, so that the next kernel's does not end it.
COMPILERS = {"clang-13": VERIFIER_LIMIT * 2 // 5, "clang": VERIFIER_LIMIT // 10}
# What the compat path is made of; the enhanced path's matcher has bounds of its own.
GROUPS = ("compat", "authorize", "telemetry", "accelerate", "bypass")


class Compiled(NamedTuple):
    """The whole tree, compiled by one compiler."""

    objects: Path
    most: int


@pytest.fixture(scope="module", params=COMPILERS)
def compiled(
    request: pytest.FixtureRequest, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Compiled:
    if shutil.which(request.param) is None:
        pytest.fail(f"no {request.param} here: `ci/setup/setup test` installs it")
    target = tmp_path_factory.mktemp(request.param)
    compile_tree(checkout / "bpf", target, clang=request.param)
    return Compiled(target, COMPILERS[request.param])


def efforts(path: Path) -> dict[str, int]:
    """Instructions that the verifier walked, by program."""
    with BpfObject(path) as opened:
        _prepare(opened, inspect_object(path))
        opened.load()
        return {
            name: loaded_program(one.fd).verified
            for name, one in opened.programs().items()
            if one.fd >= 0
        }


def test_every_program_loads_and_is_far_from_the_limit(compiled: Compiled) -> None:
    found: dict[str, int] = {}
    for group in GROUPS:
        for path in sorted((compiled.objects / group).glob("*.bpf.o")):
            found |= {f"{group}/{one}": cost for one, cost in efforts(path).items()}
    assert {name.partition("/")[0] for name in found} == set(GROUPS)
    if not any(found.values()):
        pytest.skip("this kernel does not tell (before 5.16)")
    near = {name: cost for name, cost in found.items() if not 0 < cost < compiled.most}
    assert not near


def test_every_compiler_lays_the_maps_out_alike(compiled: Compiled) -> None:
    for group, ours in (
        ("compat", layout),
        ("authorize", policy_layout),
        ("telemetry", telemetry_layout),
    ):
        found = describe((compiled.objects / group).glob("*.bpf.o"))
        assert found.digest == ours.DIGEST
        assert found.socket_digests == getattr(ours, "SOCKET_DIGESTS", {})


def test_the_probe_tells_how_far(objects: Path) -> None:
    finding = probe(objects=objects, quick=True).finding("load.compat.connect4")
    assert finding is not None
    told = [one.summary for one in finding.evidence if "verifier walked at most" in one.summary]
    assert len(told) == 1
    assert told[0].endswith("of the 1,000,000 that it allows")
