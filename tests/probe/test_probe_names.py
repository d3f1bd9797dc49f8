# SPDX-License-Identifier: Apache-2.0
"""Names in BTF, and kernels judged from files: what is hidden there must show in the verdicts."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import KmeshError
from runtime.probe.mode import lacking
from runtime.probe.names import KernelTypes
from runtime.probe.report import Report
from runtime.probe.run import probe_offline
from runtime.probe.verdict import Level, Verdict, deciding

RUNNING = Path("/sys/kernel/btf/vmlinux")
CONFIG = Path("/proc/config.gz")
Run = Callable[..., subprocess.CompletedProcess[str]]


def offline(objects: Path | None, btf: Path = RUNNING, **more: Any) -> Report:
    return probe_offline(btf=btf, config=more.pop("config", None), release=None, objects=objects)


def verdict(report: Report, capability: str) -> Verdict:
    finding = report.finding(capability)
    assert finding is not None, capability
    return finding.verdict


def test_types_of_the_running_kernel() -> None:
    types = KernelTypes(RUNNING)
    assert types.available
    assert types.helpers["map_lookup_elem"] == 1
    assert types.helper_names[165] == "snprintf"
    assert types.map_types["SOCKHASH"] == 18
    assert types.attach_types["SK_MSG_VERDICT"] == 7
    assert types.has_function("tcp_v4_connect")
    assert not types.has_function("tcp_v4_disconnect_me")


def test_fields_also_inside_anonymous_members() -> None:
    types = KernelTypes(RUNNING)
    assert types.has_field("tcp_sock.copied_seq")
    assert types.has_field("sock.__sk_common.skc_dport")
    assert types.has_field("sk_buff.dev")  # in an anonymous union of an anonymous struct
    assert not types.has_field("sock.no_such_field")
    assert not types.has_field("no_such_struct.field")
    with pytest.raises(KmeshError):
        types.has_field("sock")


def test_without_btf_nothing_is_known_and_the_reason_is(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"not BTF at all")
    types = KernelTypes(tmp_path / "bad")
    assert not types.available
    assert "cannot read BTF" in types.reason
    assert types.helpers == {}
    assert not types.has_field("sock.sk_sndbuf")


def test_a_kernel_with_everything(objects: Path) -> None:
    report = offline(objects, config=CONFIG)
    assert report.offline
    assert verdict(report, "btf") is Verdict.PRESENT
    assert verdict(report, "bpf") is Verdict.PRESENT
    for finding in report.findings:
        if finding.capability.startswith(("helpers.", "programs.", "maps.")):
            assert finding.verdict is Verdict.PRESENT, finding
        if finding.capability.startswith("load."):
            assert finding.verdict is Verdict.INCONCLUSIVE, finding
    assert report.mode.kernel_mode == "enhanced"


def test_offline_uses_no_evidence_that_takes_a_running_kernel(objects: Path) -> None:
    report = offline(objects, config=CONFIG)
    for finding in report.findings:
        for item in finding.evidence:
            assert item.level <= Level.NAME or item.verdict is Verdict.INCONCLUSIVE, finding


def test_what_only_trying_can_tell_is_open_by_name(objects: Path) -> None:
    assert verdict(offline(objects), "sockmap.egress") is Verdict.INCONCLUSIVE
    assert verdict(offline(objects), "connect.ipv4") is Verdict.INCONCLUSIVE


def test_helper_165_is_another_one(patch_btf: Callable[..., Path], calls_helper_165: Path) -> None:
    """openEuler 22.03: the number is taken by another helper, ours has moved or is not there."""
    assert verdict(offline(calls_helper_165), "helpers.compat.f") is Verdict.PRESENT
    renamed = patch_btf({"BPF_FUNC_snprintf": "BPF_FUNC_vendored"})
    report = offline(calls_helper_165, renamed)
    finding = report.finding("helpers.compat.f")
    assert finding is not None
    assert finding.verdict is Verdict.ABSENT
    decided = deciding(finding)
    assert decided is not None
    assert "number 165 is vendored here" in decided.summary
    assert "no snprintf" in decided.summary
    assert "kmesh-build" in finding.remedy
    assert report.mode.mode == "none"
    assert any("helpers.compat.f" in reason for reason in report.mode.refused["compat"])


def test_helpers_that_swapped_numbers(
    patch_btf: Callable[..., Path], calls_helper_165: Path
) -> None:
    swapped = patch_btf({"BPF_FUNC_snprintf": "BPF_FUNC_vendored"})
    data = swapped.read_bytes()
    assert data.count(b"\0BPF_FUNC_sys_close\0") == 1
    swapped.write_bytes(data.replace(b"\0BPF_FUNC_sys_close\0", b"\0BPF_FUNC_snprintf\0\0"))
    finding = offline(calls_helper_165, swapped).finding("helpers.compat.f")
    assert finding is not None
    assert finding.verdict is Verdict.ABSENT
    assert "snprintf is 168" in finding.evidence[0].summary


def test_a_helper_that_is_not_there(patch_btf: Callable[..., Path], objects: Path) -> None:
    hidden = patch_btf({"BPF_FUNC_sk_storage_get": "XXX_FUNC_sk_storage_get"})
    report = offline(objects, hidden)
    finding = report.finding("helpers.compat.connect4")
    assert finding is not None
    assert finding.verdict is Verdict.ABSENT
    assert "sk_storage_get (107) is not in this kernel" in finding.evidence[0].summary
    assert report.mode.mode == "none"
    assert report.mode.kernel_mode == "none"
    # What the battery would load needs it as well: trying is not needed to know.
    assert verdict(report, "sk_storage") is Verdict.ABSENT


def test_a_helper_that_only_telemetry_and_acceleration_call(
    patch_btf: Callable[..., Path], objects: Path
) -> None:
    """What runs beside the paths is judged like them, and stops none of them."""
    hidden = patch_btf({"BPF_FUNC_probe_read_kernel": "XXX_FUNC_probe_read_kernel"})
    report = offline(objects, hidden)
    assert report.mode.mode == "compat"
    for group in ("telemetry", "accelerate"):
        finding = report.finding(f"helpers.{group}.{group}")
        assert finding is not None
        assert finding.verdict is Verdict.ABSENT
        assert "probe_read_kernel" in finding.evidence[0].summary
        assert "traffic is served as otherwise" in finding.consequence
        assert "probe_read_kernel" in lacking(report.findings, group)
    assert verdict(report, "helpers.authorize.authorize") is Verdict.PRESENT


def test_an_optional_helper_is_not_asked_for(patch_btf: Callable[..., Path], objects: Path) -> None:
    hidden = patch_btf({"BPF_FUNC_set_retval": "XXX_FUNC_set_retval"})
    finding = offline(objects, hidden).finding("helpers.compat.connect4")
    assert finding is not None
    assert finding.verdict is Verdict.PRESENT
    assert "does without set_retval" in finding.evidence[0].summary


@pytest.mark.parametrize(
    ("old", "new", "capability"),
    [
        ("BPF_MAP_TYPE_SK_STORAGE", "XXX_MAP_TYPE_SK_STORAGE", "maps.compat.connect4"),
        (
            "BPF_PROG_TYPE_CGROUP_SOCK_ADDR",
            "XXX_PROG_TYPE_CGROUP_SOCK_ADDR",
            "programs.compat.connect4",
        ),
        ("BPF_CGROUP_INET6_CONNECT", "XXX_CGROUP_INET6_CONNECT", "programs.compat.connect6"),
    ],
)
def test_hidden_types(
    patch_btf: Callable[..., Path], objects: Path, old: str, new: str, capability: str
) -> None:
    report = offline(objects, patch_btf({old: new}))
    assert verdict(report, capability) is Verdict.ABSENT
    assert report.mode.mode == "none"


def test_a_field_that_is_not_there(
    patch_btf: Callable[..., Path], compile_one: Callable[[str], Path]
) -> None:
    text = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
struct tcp_sock { unsigned int copied_seq; } __attribute__((preserve_access_index));
SEC("sk_msg") int f(struct sk_msg_md *msg)
{ return BPF_CORE_READ((struct tcp_sock *)msg->sk, copied_seq) > 1; }
"""
    needs_field = compile_one(text)
    assert verdict(offline(needs_field), "fields.compat.f") is Verdict.PRESENT
    hidden = patch_btf({"copied_seq": "copied_qes"})
    report = offline(needs_field, hidden)
    assert verdict(report, "fields.compat.f") is Verdict.ABSENT
    finding = report.finding("fields.compat.f")
    assert finding is not None
    assert "tcp_sock.copied_seq" in finding.evidence[0].summary


def test_configuration_rules_out(tmp_path: Path, objects: Path) -> None:
    text = gzip.decompress(CONFIG.read_bytes()).decode()
    config = tmp_path / "config"
    config.write_text(text.replace("CONFIG_CGROUP_BPF=y", "# CONFIG_CGROUP_BPF is not set"))
    report = offline(objects, config=config)
    assert verdict(report, "bpf") is Verdict.ABSENT
    assert verdict(report, "programs.compat.connect4") is Verdict.ABSENT
    config.write_text(
        text.replace("CONFIG_NET_SOCK_MSG=y", "").replace("CONFIG_BPF_STREAM_PARSER=y", "")
    )
    report = offline(objects, config=config)
    assert verdict(report, "sockmap.egress") is Verdict.ABSENT
    assert report.mode.kernel_mode != "enhanced"


def test_files_that_are_not_what_they_should_be(tmp_path: Path, objects: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(KmeshError, match="cannot read BTF"):
        offline(objects, bad)
    with pytest.raises(KmeshError, match="no kernel configuration"):
        offline(objects, config=bad)


def test_command_line(kmesh_probe: Run, objects: Path, tmp_path: Path) -> None:
    config = tmp_path / "config-6.1.0"
    config.write_bytes(gzip.decompress(CONFIG.read_bytes()))
    files = ("--btf", str(RUNNING), "--config", str(config), "--objects", str(objects))
    done = kmesh_probe(*files, "--release", "6.1.90", "--output", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["offline"]
    assert report["kernel"]["release"] == "6.1.90"
    assert {hit["name"] for hit in report["bugs"]} >= {"CVE-2024-56720"}
    broken = {f["capability"] for f in report["findings"] if f["verdict"] == "broken"}
    assert "sockmap.ingress" in broken
    table = kmesh_probe(*files, "--release", "6.1.90")
    assert "not running: judged from its BTF and configuration alone" in table.stdout
    usage = kmesh_probe("--config", str(config))
    assert usage.returncode == 2
    assert "--btf" in usage.stderr


@pytest.mark.skipif(shutil.which("objcopy") is None, reason="needs objcopy (binutils)")
def test_btf_inside_an_elf_file(tmp_path: Path, objects: Path) -> None:
    empty, vmlinux = tmp_path / "e.c", tmp_path / "vmlinux"
    empty.write_text("")
    subprocess.run(["clang", "-c", str(empty), "-o", str(tmp_path / "e.o")], check=True)
    subprocess.run(
        ["objcopy", "--add-section", f".BTF={RUNNING}", str(tmp_path / "e.o"), str(vmlinux)],
        check=True,
    )
    assert verdict(offline(objects, vmlinux), "btf") is Verdict.PRESENT
