# SPDX-License-Identifier: Apache-2.0
"""A fleet judged from files: who gets what, why not better, and which change gains most."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from builder.cli import kmesh_build
from builder.fleet import Fleet, find_evidence, judge_fleet
from builder.kernels import DATA
from runtime.errors import KmeshError

KNOWN = sorted(DATA.glob("*.btf"))


def node(
    fleet: Path, name: str, *, without: str = "", btf: bool = True, release: str = "6.1.0"
) -> Path:
    """A node's directory, made of a known kernel; `without` is an option that is then off."""
    source = next(path for path in KNOWN if path.name.startswith("6.1.0"))
    place = fleet / name
    place.mkdir(parents=True)
    if btf:
        shutil.copy(source, place / "btf")
    config = source.with_suffix(".config").read_text()
    if without:
        assert f"CONFIG_{without}=y" in config
        config = config.replace(f"CONFIG_{without}=y", f"# CONFIG_{without} is not set")
    (place / "config").write_text(config)
    (place / "release").write_text(f"{release}\n")
    return place


def judged(fleet: Path, objects: Path) -> Fleet:
    return judge_fleet(find_evidence(fleet), objects=objects)


def test_the_kernels_that_are_known_are_a_fleet(objects: Path) -> None:
    fleet = judged(DATA, objects)
    assert {kernel.release for kernel in fleet.kernels} == {path.stem for path in KNOWN}
    assert fleet.modes.total() == len(KNOWN)
    assert "unknown" not in fleet.modes


def test_nodes_with_the_same_evidence_are_judged_once(tmp_path: Path, objects: Path) -> None:
    for number in range(5):
        node(tmp_path, f"node-{number}")
    fleet = judged(tmp_path, objects)
    assert [len(kernel.nodes) for kernel in fleet.kernels] == [5]


def test_the_change_that_lifts_most_comes_first(tmp_path: Path, objects: Path) -> None:
    for number in range(3):
        node(tmp_path, f"poor-{number}", without="CGROUP_BPF", release=f"6.1.{number}")
    node(tmp_path, "good")
    fleet = judged(tmp_path, objects)
    assert fleet.modes["none"] == 3
    assert fleet.kernels[0].mode == "none"
    lifting = [change for change in fleet.changes if "CONFIG_CGROUP_BPF" in change.what]
    assert lifting[0].nodes >= 3
    moves = [change for change in fleet.changes if "6.1.0" in change.what]
    assert moves[0].nodes == 3


def test_what_is_promised_is_what_the_changed_node_gets(tmp_path: Path, objects: Path) -> None:
    node(tmp_path / "before", "a", without="CGROUP_BPF")
    node(tmp_path / "after", "a")
    before, after = (judged(tmp_path / name, objects) for name in ("before", "after"))
    [promised] = [
        change.lifts for change in before.changes if set(change.lifts) == set(after.modes)
    ]
    assert after.modes == promised


def test_a_kernel_without_btf_is_judged_by_its_configuration(tmp_path: Path, objects: Path) -> None:
    node(tmp_path, "bare", without="DEBUG_INFO_BTF", btf=False)
    [kernel] = judged(tmp_path, objects).kernels
    assert kernel.report is not None
    found = kernel.report.finding("btf")
    assert found is not None
    assert found.verdict == "absent"


def test_what_cannot_be_judged_is_said_and_spoils_nothing(tmp_path: Path, objects: Path) -> None:
    node(tmp_path, "good")
    (node(tmp_path, "junk") / "btf").write_bytes(b"\0" * 64)
    lost = node(tmp_path, "lost", btf=False)
    fleet = judged(tmp_path, objects)
    assert fleet.modes["unknown"] == 2
    assert all(kernel.problem for kernel in fleet.kernels if kernel.mode == "unknown")
    assert lost.name in {name for kernel in fleet.kernels for name in kernel.nodes}


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KmeshError, match="no kernels"):
        find_evidence(tmp_path)


def test_the_command_prints_both_ways(tmp_path: Path, objects: Path) -> None:
    node(tmp_path, "a")
    arguments = ["matrix", str(tmp_path), "--objects", str(objects)]
    table = CliRunner().invoke(kmesh_build, arguments)
    assert table.exit_code == 0, table.output
    assert "1 node: 1 " in table.output
    told = json.loads(CliRunner().invoke(kmesh_build, [*arguments, "-o", "json"]).output)
    assert told["kernels"][0]["nodes"] == ["a"]
    assert sum(told["modes"].values()) == 1
