# SPDX-License-Identifier: Apache-2.0
"""The report: its schema, its table, and what --explain tells."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from packaging.version import Version

from runtime.cli.probe_table import show_report
from runtime.probe.bugs import hits
from runtime.probe.facts import Facts
from runtime.probe.kernelrelease import KernelRelease
from runtime.probe.mode import choose
from runtime.probe.report import Report, finding_from_json, finding_json, schema
from runtime.probe.run import merge, probe_offline, with_bugs
from runtime.probe.verdict import Evidence, Finding, Level, Verdict

Run = Callable[..., subprocess.CompletedProcess[str]]


def valid(data: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema())
    Draft202012Validator(schema()).validate(data)


def made(name: str, verdict: Verdict, summary: str = "seen", **more: Any) -> Finding:
    evidence = Evidence(
        level=more.pop("level", Level.LOAD),
        verdict=verdict,
        summary=summary,
        errno=more.pop("errno", None),
        log=more.pop("log", ""),
    )
    fine = verdict is Verdict.PRESENT
    return Finding(
        capability=name,
        verdict=verdict,
        evidence=(evidence,),
        consequence="" if fine else more.pop("consequence", f"{name} costs"),
        remedy="" if fine else more.pop("remedy", f"mend {name}"),
    )


def report(*findings: Finding, version: str = "7.2.0", **more: Any) -> Report:
    kernel = KernelRelease(Version(version))
    return Report(
        facts=Facts(release=version, machine="x86_64", cgroup="v2", upstream=kernel),
        findings=findings,
        bugs=hits(kernel),
        mode=choose(findings),
        duration_ms=12,
        taken_at="2026-01-02T03:04:05+00:00",
        kmesh_version="0.1.0",
        **more,
    )


def printed(shown: Report, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_report(shown)
    text = capsys.readouterr().out
    assert "\x1b" not in text  # no colour in a pipe
    lines = text.splitlines()
    assert all(line == line.rstrip() for line in lines)
    return lines


def test_the_live_report_follows_the_schema(kmesh_probe: Run, objects: Path) -> None:
    done = kmesh_probe("--output", "json", "--quick", "--objects", str(objects))
    valid(json.loads(done.stdout))
    valid(json.loads(kmesh_probe("--output", "json", "--objects", str(objects)).stdout))


def test_the_offline_report_follows_the_schema(objects: Path) -> None:
    btf = Path("/sys/kernel/btf/vmlinux")
    valid(probe_offline(btf=btf, config=None, release="6.1.90", objects=objects).to_json())


def test_the_schema_refuses_what_is_none() -> None:
    good = report(made("bpf", Verdict.PRESENT)).to_json()
    valid(good)
    for change in (
        {"schema_version": 2},
        {"mode": {**good["mode"], "mode": "fast"}},
        {"findings": [{**good["findings"][0], "verdict": "maybe"}]},
        {"extra": 1},
    ):
        assert not Draft202012Validator(schema()).is_valid({**good, **change})


def test_findings_survive_json() -> None:
    finding = made("x.y", Verdict.BROKEN, errno=22, log="a\nb")
    assert finding_from_json(json.loads(json.dumps(finding_json(finding)))) == finding


def test_the_head_says_kernel_mode_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    shown = report(made("bpf", Verdict.PRESENT), made("objects.enhanced", Verdict.ABSENT))
    lines = printed(shown, capsys)
    assert lines[:4] == [
        "Kernel    7.2.0 x86_64, cgroup v2",
        "Mode      compat: connections are balanced in the kernel, HTTP goes to a waypoint",
        "Why       not enhanced: seen (objects.enhanced)",
        "          the kernel itself could run enhanced",
    ]


def test_only_what_is_not_fine_has_an_entry(capsys: pytest.CaptureFixture[str]) -> None:
    shown = report(
        made("bpf", Verdict.PRESENT),
        made("load.compat.a", Verdict.PRESENT),
        made("load.compat.b", Verdict.PRESENT),
        made("jit", Verdict.ABSENT, "net.core.bpf_jit_enable=0"),
    )
    assert printed(shown, capsys) == [
        "Kernel    7.2.0 x86_64, cgroup v2",
        "Mode      enhanced: HTTP is routed request by request inside the kernel",
        "",
        "Works, with less",
        "  ABSENT  jit",
        "    seen  net.core.bpf_jit_enable=0",
        "    costs jit costs",
        "    mend  mend jit",
        "",
        "Fine      bpf, load.compat.* (2)",
        "          probed in 12 ms; `kmesh probe --explain NAME` tells everything about one",
    ]


def test_one_cause_is_one_entry(capsys: pytest.CaptureFixture[str]) -> None:
    same = {"errno": 22, "remedy": "use another kernel", "consequence": "cannot run"}
    names = [f"load.compat.{letter}" for letter in "abcdefgh"]
    shown = report(*(made(name, Verdict.ABSENT, "failed", **same) for name in names))
    lines = printed(shown, capsys)
    assert lines[1].startswith("Mode      none: Kmesh can manage no traffic")
    assert lines[2] == "Why       not compat or enhanced: there is no load.compat.* (8)"
    assert "  ABSENT  load.compat.* (8)" in lines
    assert lines.count("    seen  failed [EINVAL]") == 1
    assert lines.count("    mend  use another kernel") == 1


def test_missing_privileges_come_first_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = report(
        made("bpf", Verdict.DENIED),
        made("capability.bpf", Verdict.DENIED, "CAP_BPF is not held"),
        made("capability.net_admin", Verdict.DENIED, "CAP_NET_ADMIN is not held"),
        made("load.compat.a", Verdict.DENIED),
        made("cgroup2", Verdict.DENIED, "read-only"),
    )
    lines = printed(shown, capsys)
    text = "\n".join(lines)
    assert text.index("Privileges that this process lacks") < text.index("In the way")
    assert text.count("--cap-add BPF --cap-add NET_ADMIN") == 1
    assert "    hence denied too: bpf, load.compat.a" in lines
    assert "  DENIED  cgroup2" in lines  # mended otherwise: an entry of its own
    assert "          the kernel itself could run enhanced" in lines


def test_a_rootless_container_is_not_sent_for_capabilities(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = made("capability.bpf", Verdict.DENIED, remedy="run as real root")
    shown = report(finding)
    shown = replace(shown, facts=replace(shown.facts, user_namespace=True))
    text = "\n".join(printed(shown, capsys))
    assert "run as real root" in text
    assert "--cap-add" not in text


def test_known_bugs_are_shown_with_their_override(capsys: pytest.CaptureFixture[str]) -> None:
    shown = report(made("bpf", Verdict.PRESENT), version="6.1.100")
    lines = printed(shown, capsys)
    assert "Known bugs of this kernel version" in lines
    assert any("--ignore-bug CVE-2024-56720" in line and "6.1.120" in line for line in lines)
    overruled = replace(shown, bugs=tuple(replace(hit, overruled=True) for hit in shown.bugs))
    assert any("overruled by --ignore-bug" in line for line in printed(overruled, capsys))


def test_a_bug_marks_what_is_not_used() -> None:
    found = hits(KernelRelease(Version("6.1.100")))
    findings = [made("sockmap.ingress", Verdict.PRESENT, level=Level.BEHAVIOUR)]
    marked = {finding.capability: finding for finding in with_bugs(findings, found)}
    assert marked["sockmap.ingress"].verdict is Verdict.BROKEN
    assert "CVE-2025-38154" in marked["sockmap.ingress"].evidence[-1].summary
    assert marked["sockmap.cork"].verdict is Verdict.BROKEN
    vouched = [replace(hit, overruled=True) for hit in found]
    assert with_bugs(findings, vouched) == findings


def test_a_bug_does_not_hide_a_denial_or_an_absence() -> None:
    found = hits(KernelRelease(Version("6.1.100")))
    for verdict in (Verdict.DENIED, Verdict.ABSENT):
        (kept,) = [
            item
            for item in with_bugs([made("sockmap.ingress", verdict)], found)
            if item.capability == "sockmap.ingress"
        ]
        assert kept.verdict is verdict


def test_merging_keeps_all_evidence_and_the_words_of_who_decided() -> None:
    by_name = made("x", Verdict.ABSENT, "names", level=Level.NAME, remedy="old")
    tried = made("x", Verdict.BROKEN, "tried", level=Level.BEHAVIOUR, remedy="new")
    (together,) = merge([by_name], [tried])
    assert together.verdict is Verdict.BROKEN
    assert [item.summary for item in together.evidence] == ["names", "tried"]
    assert together.remedy == "new"
    fine = made("x", Verdict.PRESENT, level=Level.BEHAVIOUR)
    (together,) = merge([by_name], [fine])
    assert (together.verdict, together.remedy) == (Verdict.PRESENT, "")


def test_explain(kmesh_probe: Run, objects: Path) -> None:
    where = ("--quick", "--objects", str(objects))
    done = kmesh_probe("--explain", "load.compat.connect4", *where)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "load.compat.connect4: present"
    assert "  needed by: compat, enhanced" in lines
    assert any("loading it: present: attached" in line for line in lines)
    as_json = kmesh_probe("--explain", "btf", "--output", "json", *where)
    assert json.loads(as_json.stdout)["capability"] == "btf"
    unknown = kmesh_probe("--explain", "sockmap.egres", *where)
    assert unknown.returncode == 1
    assert "sockmap.egress" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_no_objects_at_all(kmesh_probe: Run, tmp_path: Path) -> None:
    done = kmesh_probe("--objects", str(tmp_path), "--quick")
    assert done.returncode == 3
    assert "Mode      none" in done.stdout
    assert "`make bpf`" in done.stdout


def test_usage_mistakes(kmesh_probe: Run, tmp_path: Path) -> None:
    assert kmesh_probe("--objects", str(tmp_path / "none")).returncode == 2
    assert kmesh_probe("--output", "xml").returncode == 2
    done = kmesh_probe("--ignore-bug", "CVE-1", "--quick")
    assert done.returncode == 1
    assert "no known bug has the name CVE-1" in done.stderr
