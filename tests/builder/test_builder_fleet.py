# SPDX-License-Identifier: Apache-2.0
"""A fleet judged from files: who gets what, why not better, and which change gains most."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from builder.cli import kmesh_build
from builder.fleet import Fleet, find_evidence, judge_fleet
from builder.fleet_changes import causes, changes
from builder.fleet_groups import Judged, folded, grouped
from builder.kernels import DATA
from runtime.errors import KmeshError
from runtime.probe.mode import choose
from runtime.probe.report import Report
from runtime.probe.run import probe_offline
from runtime.probe.verdict import Evidence, Finding, Level, Verdict

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
    moves = [change for change in fleet.changes if "the kernel that good runs" in change.what]
    assert moves[0].nodes == 3


def test_what_is_promised_is_what_the_changed_node_gets(tmp_path: Path, objects: Path) -> None:
    node(tmp_path / "before", "a", without="CGROUP_BPF")
    node(tmp_path / "after", "a")
    before, after = (judged(tmp_path / name, objects) for name in ("before", "after"))
    [promised] = [change.lifts for change in before.changes if "CGROUP_BPF" in change.what]
    assert after.modes == promised


# A fleet, and what it is told.


def finding(capability: str, verdict: Verdict, *, why: str = "", remedy: str = "") -> Finding:
    evidence = Evidence(level=Level.FACT, verdict=verdict, summary=why)
    return Finding(capability=capability, verdict=verdict, evidence=(evidence,), remedy=remedy)


def kind(release: str, nodes: int, *lacking: tuple[str, str, str]) -> Judged:
    """Nodes that have all but what is lacking: (capability, why, remedy)."""
    absent = [
        finding(name, Verdict.ABSENT, why=why, remedy=remedy) for name, why, remedy in lacking
    ]
    there = [
        finding(name, Verdict.PRESENT)
        for name in ("bpf", "cgroup2", "objects.compat", "objects.enhanced", "sockops")
        if name not in {each.capability for each in absent}
    ]
    findings = (*there, *absent)
    report = replace(any_report(), findings=findings, mode=choose(findings))
    names = tuple(f"{release}-{number}" for number in range(nodes))
    return Judged(release=release, nodes=names, report=report)


@cache
def any_report() -> Report:
    [btf] = (path for path in KNOWN if path.name.startswith("6.1.0"))
    return probe_offline(btf=btf, config=None, release="6.1.0", objects=None)


_NO_RELEASE = "nothing to do on this host: use a release of Kmesh that carries the enhanced path"
_NO_CGROUPS = ("bpf", "CONFIG_CGROUP_BPF=n", "use a kernel built with this or that")
_NO_CONNECT = ("connect.ipv4", "needs CONFIG_CGROUP_BPF=y", "a kernel of 5.10 or later")
_NO_OBJECTS = ("objects.enhanced", "this build carries none", _NO_RELEASE)
_NO_PARSER = ("sockops", "needs CONFIG_BPF_STREAM_PARSER=y", "another kernel")


def a_thousand() -> list[Judged]:
    """A thousand nodes of a hundred releases, which run the same for want of the same in four ways."""
    ways = [(), (_NO_CGROUPS, _NO_CONNECT), (_NO_OBJECTS,), (_NO_OBJECTS, _NO_PARSER)]
    return [kind(f"6.1.{number}", 10, *ways[number % 4]) for number in range(100)]


def test_a_thousand_nodes_are_a_line_for_each_way_to_lack() -> None:
    groups = grouped(a_thousand())
    assert [(group.mode, len(group.nodes), group.lacking) for group in groups] == [
        ("none", 250, ("bpf", "connect.ipv4")),
        ("compat", 250, ("objects.enhanced",)),
        ("compat", 250, ("objects.enhanced", "sockops")),
        ("enhanced", 250, ()),
    ]
    assert all(len(group.releases) == 25 for group in groups)


def test_each_change_says_what_it_alone_gains() -> None:
    told = {change.what: (change.lifts, change.wanted) for change in changes(a_thousand())}
    best = "the kernel that 6.1.0-0 runs, 6.1.0 as it is configured there"
    assert told == {
        best: ({"enhanced": 750}, 750),
        "the kernel that 6.1.2-0 runs, 6.1.2 as it is configured there": ({"compat": 250}, 250),
        "a kernel with CONFIG_CGROUP_BPF=y": ({"enhanced": 250}, 250),
        "use a release of Kmesh that carries the enhanced path": ({"enhanced": 250}, 500),
        "a kernel with CONFIG_BPF_STREAM_PARSER=y": ({}, 250),
    }
    assert changes(a_thousand())[0].what == best
    assert changes(a_thousand())[-1].lifts == {}


def test_nothing_that_is_said_at_a_host_is_said_of_a_fleet() -> None:
    said = (
        ("use a kernel with BTF; in a container mount the host's /sys", "use a kernel with BTF"),
        ("another kernel; until then HTTP goes by the compat path", "another kernel"),
        (_NO_RELEASE, _NO_RELEASE.partition(": ")[2]),
    )
    for remedy, expected in said:
        assert causes(finding("x", Verdict.ABSENT, remedy=remedy)) == {expected}
    assert causes(finding("x", Verdict.ABSENT)) == frozenset()


def test_a_finding_with_two_causes_is_not_mended_by_one() -> None:
    both = ("bpf", "CONFIG_BPF_SYSCALL=n, CONFIG_CGROUP_BPF=n", "")
    assert [change.lifts for change in changes([kind("6.1.0", 3, both)])] == [{}, {}]


def test_many_names_of_one_kind_are_one_word() -> None:
    names = ["bpf", "connect.ipv4", "programs.compat.a", "programs.compat.b", "load.compat.a"]
    assert folded(names) == ["bpf", "connect.ipv4", "programs.compat.* (2)", "load.compat.a"]


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
    node(tmp_path, "a", without="CGROUP_BPF")
    arguments = ["matrix", str(tmp_path), "--objects", str(objects)]
    table = CliRunner().invoke(kmesh_build, arguments)
    assert table.exit_code == 0, table.output
    assert "1 node: 1 " in table.output
    told = json.loads(CliRunner().invoke(kmesh_build, [*arguments, "-o", "json"]).output)
    assert told["kernels"][0]["nodes"] == ["a"]
    assert sum(told["modes"].values()) == 1
    assert [group["nodes"] for group in told["groups"]] == [["a"]]
    assert {"what", "lifts", "wanted"} == set(told["changes"][0])
