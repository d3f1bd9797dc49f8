# SPDX-License-Identifier: Apache-2.0
"""Kmesh's own kernel functions in BTF, and the rule which provider of the enhanced path a kernel gets."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.bpf.btf import Btf, Kind
from runtime.probe import provider
from runtime.probe.names import KernelTypes, module_files
from runtime.probe.provider import CAPABILITY, FORMER, HELPERS, KFUNCS, Form, Provider
from runtime.probe.report import Report
from runtime.probe.run import probe_offline
from runtime.probe.verdict import Evidence, Finding, Level, Verdict

RUNNING = Path("/sys/kernel/btf/vmlinux")
_HEADER, _TYPE = struct.Struct("=HBBIIIII"), struct.Struct("=III")
_FUNC_PROTO = 13
Patch = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]


def module_btf(path: Path, functions: Iterable[str]) -> Path:
    """A module's BTF, upon the running kernel's: functions that take nothing."""
    base = RUNNING.read_bytes()
    first_string = _HEADER.unpack_from(base)[7]
    with Btf(RUNNING) as kernel:
        prototype = len(kernel)
    strings, types = b"\0", _TYPE.pack(0, _FUNC_PROTO << 24, 0)
    for name in functions:
        types += _TYPE.pack(first_string + len(strings), Kind.FUNC << 24, prototype)
        strings += name.encode() + b"\0"
    head = _HEADER.pack(0xEB9F, 1, 0, _HEADER.size, 0, len(types), len(types), len(strings))
    path.write_bytes(head + types + strings)
    return path


@pytest.fixture
def named(patch_btf: Patch) -> Callable[..., Path]:
    """The running kernel's BTF with helpers of these names, in the place of others as long."""

    def make(names: Iterable[str]) -> Path:
        free = set(KernelTypes(RUNNING).helpers) - {"sk_storage_get", "map_lookup_elem"}
        renamed = {}
        for name in names:
            old = min(one for one in free if len(one) == len(name))
            free.remove(old)
            renamed[f"BPF_FUNC_{old}"] = f"BPF_FUNC_{name}"
        return patch_btf(renamed)

    return make


def judged(
    btf: Path = RUNNING, modules: Iterable[Path] = (), objects: Path | None = None
) -> Report:
    return probe_offline(btf=btf, config=None, release=None, objects=objects, modules=modules)


def seen(report: Report) -> tuple[Verdict, str]:
    finding = report.finding(CAPABILITY)
    assert finding is not None
    return finding.verdict, "; ".join(item.summary for item in finding.evidence)


def test_functions_of_a_module_are_found_by_name(tmp_path: Path) -> None:
    other = module_btf(tmp_path / "aaa", ["something_else"])
    ours = module_btf(tmp_path / "kmesh", KFUNCS)
    types = KernelTypes(RUNNING, modules=[other, ours])
    assert types.function_home("tcp_v4_connect") == "vmlinux"
    assert types.function_home("something_else") == "aaa"
    assert types.function_home(KFUNCS[0]) == "kmesh"
    assert types.function_home(KFUNCS[0][:-1]) == ""
    assert types.has_function(KFUNCS[0])
    assert not KernelTypes(RUNNING).has_function(KFUNCS[0])


def test_a_string_that_is_no_functions_name_is_none(tmp_path: Path) -> None:
    ours = module_btf(tmp_path / "kmesh", KFUNCS)
    data = ours.read_bytes()
    start = _HEADER.size + _TYPE.size  # the first function becomes a typedef of that name
    name, _, prototype = _TYPE.unpack_from(data, start)
    typedef = _TYPE.pack(name, 8 << 24, prototype)
    ours.write_bytes(data[:start] + typedef + data[start + _TYPE.size :])
    assert provider.kmesh_functions(KernelTypes(RUNNING, modules=[ours])).missing == KFUNCS[:1]


def test_a_module_of_another_kernel_or_gone_is_passed_over(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\0" + KFUNCS[0].encode() + b"\0")
    ours = module_btf(tmp_path / "kmesh", KFUNCS)
    types = KernelTypes(RUNNING, modules=[damaged, tmp_path / "gone", ours])
    assert types.function_home(KFUNCS[0]) == "kmesh"


def test_the_modules_of_the_running_kernel_stand_beside_it(tmp_path: Path) -> None:
    for name in ("vmlinux", "kmesh", "nf_tables"):
        (tmp_path / name).touch()
    assert [path.name for path in module_files(tmp_path / "vmlinux")] == ["kmesh", "nf_tables"]


def test_nothing_is_told_where_there_is_nothing() -> None:
    assert judged().finding(CAPABILITY) is None
    assert provider.kmesh_functions(KernelTypes(None)).form is Form.NONE


def test_all_kernel_functions(tmp_path: Path) -> None:
    verdict, summary = seen(judged(modules=[module_btf(tmp_path / "kmesh", KFUNCS)]))
    assert verdict is Verdict.PRESENT
    assert "kernel functions of kmesh: bpf_parse_header_msg_func" in summary


@pytest.mark.parametrize("lost", KFUNCS)
def test_one_kernel_function_is_not_there(tmp_path: Path, lost: str) -> None:
    rest = [name for name in KFUNCS if name != lost]
    verdict, summary = seen(judged(modules=[module_btf(tmp_path / "kmesh", rest)]))
    assert verdict is Verdict.ABSENT
    assert f"without {lost}" in summary


@pytest.mark.parametrize(
    ("names", "form", "said"),
    [
        (HELPERS, Form.HELPERS, "as helpers"),
        (HELPERS[:2], Form.HELPERS, f"without {HELPERS[2]}"),
        (HELPERS[1:], Form.HELPERS, "without parse_header_msg"),
        ((HELPERS[0], *FORMER), Form.FORMER, "another argument"),
    ],
)
def test_helpers_are_told_apart_by_name(
    named: Callable[..., Path], names: tuple[str, ...], form: Form, said: str
) -> None:
    btf = named(names)
    assert provider.kmesh_functions(KernelTypes(btf)).form is form
    verdict, summary = seen(judged(btf))
    assert verdict is Verdict.ABSENT
    assert said in summary


def test_kernel_functions_are_taken_where_there_are_helpers_too(
    named: Callable[..., Path], tmp_path: Path
) -> None:
    module = module_btf(tmp_path / "kmesh", KFUNCS)
    # Names of one length: the module still fits upon it.
    assert seen(judged(named(HELPERS), [module]))[0] is Verdict.PRESENT


def test_a_kept_verdict_is_not_that_of_a_module_that_has_come_or_gone(tmp_path: Path) -> None:
    other = module_btf(tmp_path / "other", ["something_else"])
    assert provider.identities([other, tmp_path / "gone"]) == []
    part = provider.identities([module_btf(tmp_path / "part", KFUNCS[:1])])
    whole = provider.identities([other, module_btf(tmp_path / "kmesh", KFUNCS)])
    assert len(part) == len(whole) == 1
    assert part != whole


def test_whether_connect_is_deferred(tmp_path: Path) -> None:
    listed = tmp_path / "tcp_available_ulp"
    assert not provider.defers(listed)
    listed.write_text("espintcp mptcp tls\n")
    assert not provider.defers(listed)
    listed.write_text("kmesh_defer_not tls\n")
    assert not provider.defers(listed)
    listed.write_text("tls kmesh_defer\n")
    assert provider.defers(listed)


def finding(name: str, verdict: Verdict = Verdict.PRESENT) -> Finding:
    evidence = (Evidence(level=Level.LOAD, verdict=verdict, summary="x"),)
    return Finding(capability=name, verdict=verdict, evidence=evidence)


def chosen(kernel_mode: str, *findings: Finding) -> Provider:
    decision = replace(judged().mode, kernel_mode=kernel_mode)
    return provider.choose(findings, decision)


OFFERED = finding(CAPABILITY)
LOADED = finding("load.openeuler.defer4")


def test_the_stock_provider_comes_first() -> None:
    assert chosen("enhanced").name == "stock"
    assert chosen("enhanced", OFFERED, LOADED).name == "stock"


def test_kmeshs_own_is_for_kernels_that_cannot_route_each_request() -> None:
    assert chosen("compat", OFFERED, LOADED).name == "kmesh"
    assert chosen("none", OFFERED, LOADED).name == "none"


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ((), "neither"),
        ((LOADED,), "neither"),
        ((finding(CAPABILITY, Verdict.ABSENT), LOADED), "provider.kmesh is absent"),
        ((OFFERED,), "carries no program"),
        ((OFFERED, LOADED, finding("load.openeuler.b", Verdict.DENIED)), "load.openeuler.b"),
        ((OFFERED, finding("load.openeuler.b", Verdict.INCONCLUSIVE)), "load.openeuler.b"),
    ],
)
def test_what_is_not_there_or_not_tried_is_not_chosen(
    findings: tuple[Finding, ...], said: str
) -> None:
    got = chosen("compat", *findings)
    assert got.name == "none"
    assert said in got.reason


def test_the_programs_are_judged_where_there_is_something_to_call(
    all_objects: Path, tmp_path: Path
) -> None:
    module = module_btf(tmp_path / "kmesh", KFUNCS)
    report = judged(modules=[module], objects=all_objects)
    found = report.finding("kfuncs.openeuler.connect4")
    assert found is not None
    assert found.verdict is Verdict.PRESENT
    load = report.finding("load.openeuler.connect4")
    assert load is not None
    assert load.verdict is Verdict.INCONCLUSIVE  # the kernel is not running
    elsewhere = judged(objects=all_objects)
    assert [one for one in elsewhere.findings if ".openeuler." in one.capability] == []
    assert elsewhere.mode == report.mode


def test_command_line(kmesh_probe: Run, objects: Path, tmp_path: Path) -> None:
    module = module_btf(tmp_path / "kmesh", KFUNCS)
    files = ("--btf", str(RUNNING), "--objects", str(objects))
    done = kmesh_probe(*files, "--module-btf", str(module), "--output", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["provider"]["name"] == "stock"
    [told] = [one for one in report["findings"] if one["capability"] == CAPABILITY]
    assert told["verdict"] == "present"
    table = kmesh_probe(*files, "--module-btf", str(module))
    assert "Provider  stock: " in table.stdout
    assert "Provider" not in kmesh_probe(*files).stdout
    usage = kmesh_probe("--module-btf", str(module))
    assert usage.returncode == 2
    assert "--module-btf" in usage.stderr
