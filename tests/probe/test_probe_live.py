# SPDX-License-Identifier: Apache-2.0
"""The prober on the kernel that runs the tests: whole, with privileges dropped, with BTF hidden."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.bpf.btf import Btf
from runtime.bpf.lib import lib
from runtime.errors import KmeshError
from runtime.objects.inspect import inspect_object
from runtime.probe import bcc_adapter, loadcgroup
from runtime.probe.facts import running_facts
from runtime.probe.run import probe, probe_offline
from runtime.probe.standin import questions
from runtime.probe.verdict import Level, Verdict
from tests.probe.header_tree import build, common, declared
from tests.probe.layouts import answers

pytestmark = pytest.mark.root
Probe = Callable[..., dict[str, Any]]
Run = Callable[..., subprocess.CompletedProcess[str]]


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {finding["capability"]: finding["verdict"] for finding in report["findings"]}


def test_this_kernel_runs_enhanced(probe_json: Probe) -> None:
    report = probe_json()
    found = verdicts(report)
    assert report["mode"]["mode"] == "enhanced"
    assert report["mode"]["reasons"] == []
    for name in ("bpf", "capability.bpf", "cgroup2", "bpffs", "btf", "jit", "netns", "memlock"):
        assert found[name] == "present", name
    for path in ("compat", "enhanced"):
        loads = {name: verdict for name, verdict in found.items() if f"load.{path}." in name}
        assert loads
        assert set(loads.values()) == {"present"}
    assert found["connect.ipv4"] == "present"


def test_every_finding_that_is_not_present_says_what_it_costs(probe_json: Probe) -> None:
    for finding in probe_json()["findings"]:
        if finding["verdict"] == "present":
            assert finding["consequence"] == ""
        else:
            assert finding["consequence"], finding
            assert finding["remedy"], finding
            assert finding["evidence"], finding


def test_quick_leaves_the_battery_out(probe_json: Probe) -> None:
    report = probe_json("--quick")
    assert report["quick"]
    levels = {item["level"] for finding in report["findings"] for item in finding["evidence"]}
    assert "behaviour" not in levels
    assert "load" in levels
    assert report["mode"]["mode"] == "enhanced"
    assert "connect.ipv4" in report["mode"]["unverified"]


DROPS = [
    ({"bpf", "sys_admin"}, {"bpf", "capability.bpf", "load.compat.connect4"}),
    ({"net_admin", "sys_admin"}, {"capability.net_admin", "load.compat.connect4"}),
    ({"perfmon", "sys_admin"}, {"capability.perfmon", "kernel.memory"}),
    ({"sys_admin"}, {"capability.sys_admin"}),
]


@pytest.mark.parametrize(("dropped", "denied"), DROPS, ids=lambda item: "+".join(sorted(item)))
def test_a_dropped_capability_reads_denied(
    probe_json: Probe, dropped: set[str], denied: set[str]
) -> None:
    whole = verdicts(probe_json())
    without = ",".join(f"-{name}" for name in sorted(dropped))
    report = probe_json(behind=["setpriv", "--bounding-set", without, "--inh-caps", without])
    found = verdicts(report)
    for name in denied:
        assert found[name] == "denied", name
    for name, verdict in found.items():
        if whole.get(name) == "present":
            assert verdict in ("present", "denied", "inconclusive"), f"{name} reads {verdict}"
    assert report["mode"]["kernel_mode"] == "enhanced"
    for finding in report["findings"]:
        if finding["capability"] in denied:
            assert "CAP_" in finding["evidence"][-1]["summary"], finding
            assert finding["remedy"], finding


def test_no_capability_at_all(probe_json: Probe) -> None:
    report = probe_json(behind=["setpriv", "--bounding-set=-all", "--inh-caps=-all"])
    assert report["mode"]["mode"] == "none"
    assert report["kernel"]["capabilities"] == []
    assert any("denied" in reason for reason in report["mode"]["refused"]["compat"])


def test_in_a_user_namespace(probe_json: Probe) -> None:
    report = probe_json(behind=["unshare", "--user", "--map-root-user"])
    assert report["kernel"]["user_namespace"]
    assert verdicts(report)["capability.bpf"] == "denied"
    (finding,) = [f for f in report["findings"] if f["capability"] == "capability.bpf"]
    assert "rootless" in finding["remedy"]


# Refuses bpf(2) with EPERM as container engines do, and runs the rest of its command line.
SECCOMP = """
import ctypes, os, platform, struct, sys
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
rows = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = b"".join(struct.pack("=HBBI", *row) for row in rows)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("@HP", len(rows), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_seccomp_filter_reads_denied(probe_json: Probe) -> None:
    report = probe_json(behind=[sys.executable, "-c", SECCOMP])
    found = verdicts(report)
    assert report["kernel"]["seccomp"] == 2
    assert found["capability.bpf"] == "present"
    for name in ("bpf", "load.compat.connect4"):
        assert found[name] == "denied", name
    (finding,) = [f for f in report["findings"] if f["capability"] == "bpf"]
    assert "seccomp" in finding["evidence"][-1]["summary"]
    assert "seccomp profile" in finding["remedy"]


def test_offline_says_of_this_kernel_what_running_it_says(probe_json: Probe, objects: Path) -> None:
    """What names can decide they decide rightly; the rest they leave open."""
    live = verdicts(probe_json())
    report = probe_offline(
        btf=Path("/sys/kernel/btf/vmlinux"),
        config=Path("/proc/config.gz"),
        release=running_facts().release,
        objects=objects,
    )
    decided = {
        finding.capability: str(finding.verdict)
        for finding in report.findings
        if finding.verdict is not Verdict.INCONCLUSIVE
    }
    assert len(decided) > 20
    for name, verdict in decided.items():
        assert live[name] == verdict, name


def hidden(directory: str) -> list[str]:
    """Run with an empty file system over a directory, for this command alone."""
    return ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {directory} && exec "$@"', "sh"]


def test_hidden_btf(probe_json: Probe) -> None:
    report = probe_json(behind=hidden("/sys/kernel/btf"))
    found = verdicts(report)
    assert found["btf"] == "absent"
    assert found["helpers.compat.connect4"] == "inconclusive"
    assert found["load.compat.connect4"] == "present"  # it needs no kernel types: loading decides
    assert found["connect.ipv4"] == "present"
    assert found["sockmap.flow_control.btf"] == "absent"
    assert found["compile.bcc"] == "absent"
    assert report["mode"]["mode"] == "compat"


def headers_like_this_kernel(root: Path, objects: Path) -> Path:
    """Headers that lay out what our objects read as this kernel does, which none are installed of."""
    wanted = {
        name for path in objects.rglob("*.bpf.o") for name in inspect_object(path).core_fields
    }
    with Btf() as btf:
        text = declared(answers(btf, questions(wanted)))
    return common(build(root, release=running_facts().release), sock=text)


@pytest.mark.skipif(bcc_adapter._interpreter() is None, reason="needs bcc (python3-bpfcc)")
def test_hidden_btf_with_headers(
    probe_json: Probe, objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads the kernel works as with BTF: loaded, and tried."""
    with_btf = verdicts(probe_json())
    tree = headers_like_this_kernel(tmp_path / "headers", objects)
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tree))
    report = probe_json(behind=hidden("/sys/kernel/btf"))
    found = verdicts(report)
    assert found["btf"] == "absent"
    assert found["compile.bcc"] == "present"
    for name in (
        *(
            f"{what}.{one}.{one}"
            for what in ("fields", "load")
            for one in ("accelerate", "telemetry")
        ),
        "sockmap.flow_control.btf",
        "sockmap.flow_control.shortcut",
    ):
        assert found[name] == with_btf[name] == "present", name
    [fields] = [f for f in report["findings"] if f["capability"] == "fields.telemetry.telemetry"]
    assert str(tree) in fields["evidence"][0]["summary"]


def test_cgroup2_not_mounted(probe_json: Probe) -> None:
    where = running_facts().cgroup2_mount
    behind = ["unshare", "-m", "sh", "-c", f'umount -l {where} && exec "$@"', "sh"]
    report = probe_json(behind=behind)
    (finding,) = [f for f in report["findings"] if f["capability"] == "cgroup2"]
    assert finding["verdict"] == "absent"
    assert "not mounted" in finding["evidence"][-1]["summary"]
    assert "mount -t cgroup2" in finding["remedy"]
    assert report["mode"]["mode"] == "none"


def test_cgroup2_read_only(probe_json: Probe) -> None:
    where = running_facts().cgroup2_mount
    script = f'mount --bind {where} {where} && mount -o remount,bind,ro {where} && exec "$@"'
    report = probe_json("--quick", behind=["unshare", "-m", "sh", "-c", script, "sh"])
    (finding,) = [f for f in report["findings"] if f["capability"] == "cgroup2"]
    assert finding["verdict"] == "denied"
    assert "not writable" in finding["evidence"][-1]["summary"]


def test_an_object_that_the_verifier_refuses(compile_one: Callable[[str], Path]) -> None:
    text = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} m SEC(".maps");
SEC("cgroup/connect4")
int f(struct bpf_sock_addr *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&m, &key);

	return *value != 7; /* not checked for NULL */
}
"""
    report = probe(objects=compile_one(text), quick=True)
    finding = report.finding("load.compat.f")
    assert finding is not None
    assert finding.verdict is Verdict.ABSENT
    last = finding.evidence[-1]
    assert last.errno == 13
    assert "invalid mem access 'map_value_or_null'" in last.summary
    assert "processed" in last.log  # the whole log is kept for --explain
    assert report.mode.mode == "none"


_WITH_OPTIONAL = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <kmesh/optional.h>
char LICENSE[] SEC("license") = "GPL";
SEC("cgroup/connect4")
int f(struct bpf_sock_addr *ctx)
{
	return 1;
}
%
SEC("cgroup/connect4")
int g(struct bpf_sock_addr *ctx)
{
	return bpf_msg_cork_bytes((void *)ctx, 1); /* for another type of program */
}
"""


@pytest.mark.parametrize("declared", [True, False])
def test_a_program_that_may_be_left_out_is(
    compile_one: Callable[[str], Path], *, declared: bool
) -> None:
    text = _WITH_OPTIONAL.replace("%", "KMESH_OPTIONAL_PROGRAM(g);" if declared else "")
    report = probe(objects=compile_one(text), quick=True)
    finding = report.finding("load.compat.f")
    assert finding is not None
    said = finding.evidence[0].summary
    if declared:
        assert finding.verdict is Verdict.PRESENT
        assert "loaded 1 programs without g" in said
    else:
        assert finding.verdict is Verdict.ABSENT
        assert "bpf_msg_cork_bytes" in said


def test_enhanced_objects_make_the_mode_enhanced(
    compile_one: Callable[[str], Path], objects: Path, tmp_path: Path
) -> None:
    """Whatever lies in the group is inspected and loaded, also on socket maps."""
    text = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u64);
} socks SEC(".maps");
SEC("sockops") int enroll(struct bpf_sock_ops *ctx)
{ __u64 key = 1; bpf_sock_hash_update(ctx, &socks, &key, BPF_ANY); return 1; }
SEC("sk_msg") int route(struct sk_msg_md *msg)
{ __u64 key = 1; return bpf_msg_redirect_hash(msg, &socks, &key, 0); }
"""
    for group in ("compat", "probe"):
        (tmp_path / group).symlink_to(objects / group)
    (tmp_path / "enhanced").symlink_to(compile_one(text) / "compat")
    report = probe(objects=tmp_path, quick=True)
    finding = report.finding("load.enhanced.f")
    assert finding is not None
    assert finding.verdict is Verdict.PRESENT
    summaries = [item.summary for item in finding.evidence if item.level is Level.LOAD]
    assert any("scratch cgroup" in text for text in summaries)
    assert any("to map socks" in text for text in summaries)
    assert (report.mode.mode, report.mode.reasons) == ("enhanced", ())


def test_a_damaged_object_is_broken_and_named(objects: Path, tmp_path: Path) -> None:
    (tmp_path / "compat").mkdir()
    for path in (objects / "compat").glob("*.bpf.o"):
        (tmp_path / "compat" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "compat" / "connect4.bpf.o").write_bytes(b"")
    report = probe(objects=tmp_path, quick=True)
    finding = report.finding("objects.compat")
    assert finding is not None
    assert finding.verdict is Verdict.BROKEN
    assert "connect4.bpf.o: the file is empty" in finding.evidence[0].summary
    assert report.mode.mode == "none"


def test_an_unknown_override_is_a_mistake(objects: Path) -> None:
    with pytest.raises(KmeshError, match="no known bug has the name CVE-1"):
        probe(objects=objects, quick=True, overrides=frozenset({"CVE-1"}))


def test_seccomp_is_told_from_a_missing_capability() -> None:
    """EPERM with everything held and a filter on: the filter is named."""
    from dataclasses import replace

    from runtime.probe.denial import why_denied

    facts = replace(running_facts(), seccomp=2)
    denial = why_denied(facts, code=1)
    assert denial is not None
    assert "seccomp" in denial.reason
    assert why_denied(facts, code=22) is None
    held = facts.capabilities or frozenset()
    without = replace(facts, capabilities=held - {"BPF", "SYS_ADMIN"})
    found = why_denied(without, code=1)
    assert found is not None
    assert "CAP_BPF" in found.reason
    gated = "unknown func bpf_probe_read_kernel#113"
    locked = why_denied(replace(facts, lockdown="confidentiality"), code=22, log=gated)
    assert locked is not None
    assert "lockdown" in locked.reason
    assert why_denied(facts, code=22, log=gated) is None  # nothing forbids it: it is not there


# What a probe must not leave behind.


def ids(kind: str) -> set[int]:
    import ctypes

    found, current = set(), ctypes.c_uint32(0)
    advance = getattr(lib(), f"bpf_{kind}_get_next_id")
    while advance(current.value, ctypes.byref(current)) == 0:
        found.add(current.value)
    return found


def scratch_cgroups() -> set[str]:
    mount = Path(running_facts().cgroup2_mount)
    return {
        path.name
        for path in mount.iterdir()
        if path.name.startswith(("kmesh-load-", "kmesh-probe-"))
    }


def bpf_ids() -> dict[str, set[int]]:
    return {kind: ids(kind) for kind in ("prog", "map", "link")}


def settles(look: Callable[[], Any], *, patience: float) -> Any:
    """What is left when it is empty, or when patience ends: programs are freed late."""
    deadline = time.monotonic() + patience
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def left_in_the_kernel(run_once: Callable[[], object], *, attempts: int = 6) -> dict[str, set[int]]:
    """Programs, maps and links that every one of several runs leaves.

    Others on this host come and go as they like: what they load is not there after each run.
    """
    left: dict[str, set[int]] = {}
    for _ in range(attempts):
        before = bpf_ids()
        run_once()

        def new(before: dict[str, set[int]] = before) -> dict[str, set[int]]:
            now = bpf_ids()
            return {kind: now[kind] - before[kind] for kind in now if now[kind] - before[kind]}

        left = settles(new, patience=4)
        if not left:
            break
    return left


def in_session(session: int) -> list[str]:
    """Processes of a session, with the network namespace that each keeps alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def started(objects: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "runtime.cli.main", "probe", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [*argv, "--objects", str(objects)],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_a_probe_leaves_nothing(objects: Path) -> None:
    sessions: list[int] = []

    def run_once() -> None:
        with started(objects) as process:
            sessions.append(process.pid)
            assert process.wait(60) == 0

    assert left_in_the_kernel(run_once) == {}
    assert (
        settles(lambda: [pid for session in sessions for pid in in_session(session)], patience=5)
        == []
    )


def test_a_probe_leaves_no_mount(objects: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, where nobody else mounts anything."""
    script = (
        "cat /proc/self/mountinfo > before; "
        f"{sys.executable} -m runtime.cli.main probe --no-cache --objects {objects} > report; "
        "cat /proc/self/mountinfo > after"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=tmp_path, env=environment, check=True, timeout=60
    )
    assert "Mode      enhanced" in (tmp_path / "report").read_text()
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


@pytest.mark.parametrize("after_ms", [80, 250, 400, 600])
def test_a_killed_probe_leaves_nothing_that_the_next_does_not_remove(
    kmesh_probe: Run, objects: Path, after_ms: int
) -> None:
    sessions: list[int] = []
    before = scratch_cgroups()

    def run_once() -> None:
        with started(objects) as killed:
            sessions.append(killed.pid)
            time.sleep(after_ms / 1000)
            killed.send_signal(signal.SIGKILL)

    assert left_in_the_kernel(run_once) == {}
    # Its children die with it, and with them the network namespaces that they keep alive.
    assert (
        settles(lambda: [pid for session in sessions for pid in in_session(session)], patience=5)
        == []
    )
    done = kmesh_probe("--no-cache", "--objects", str(objects), "--output", "json")
    assert json.loads(done.stdout)["mode"]["mode"] == "enhanced"
    mine = {str(session) for session in sessions}

    def left() -> set[str]:
        return {name for name in scratch_cgroups() - before if name.split("-")[2] in mine}

    assert settles(left, patience=5) == set()


def test_leftovers_are_told_from_what_is_in_use() -> None:
    mount = Path(running_facts().cgroup2_mount)
    left = mount / f"{loadcgroup.PREFIX}{os.getpid()}-left"
    left.mkdir()
    try:
        with loadcgroup.load_cgroup(mount) as descriptor:  # removes what is not in use
            assert not left.exists()
            mine = Path(f"/proc/self/fd/{descriptor}").readlink()
            assert loadcgroup.remove_leftovers(mount) == []
            assert mine.exists()
        assert not mine.exists()
    finally:
        if left.exists():
            left.rmdir()


def test_large_preallocated_maps_are_tried_small(compile_one: Callable[[str], Path]) -> None:
    text = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 30);
	__type(key, __u64);
	__uint(value_size, 1024);
} huge SEC(".maps");
SEC("cgroup/connect4") int f(struct bpf_sock_addr *ctx)
{ __u64 key = 1; return bpf_map_lookup_elem(&huge, &key) == 0; }
"""
    finding = probe(objects=compile_one(text), quick=True).finding("load.compat.f")
    assert finding is not None
    assert finding.verdict is Verdict.PRESENT  # a terabyte would not be


def test_what_libbpf_says_goes_to_the_thread_that_asked(compile_one: Callable[[str], Path]) -> None:
    """Objects are loaded side by side: each gets its own verifier's words."""
    text = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("cgroup/connect4") int {name}(struct bpf_sock_addr *ctx) {{ {body} }}
"""
    directory = compile_one(text.format(name="ok", body="return 1;"))
    for index in range(6):
        bad = compile_one(text.format(name=f"bad{index}", body="return 7;"))
        (bad / "compat" / "f.bpf.o").rename(directory / "compat" / f"bad{index}.bpf.o")
    report = probe(objects=directory, quick=True, cache=False)
    good = report.finding("load.compat.f")
    assert good is not None
    assert good.verdict is Verdict.PRESENT
    for index in range(6):
        finding = report.finding(f"load.compat.bad{index}")
        assert finding is not None
        assert finding.verdict is Verdict.ABSENT
        logs = {item.log for item in finding.evidence if item.log}
        assert len(logs) == 1
        assert f"bad{index}" in logs.pop()
