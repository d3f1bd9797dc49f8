# SPDX-License-Identifier: Apache-2.0
"""Poorer hosts than the one that was booted, and what must be said of each.

A scenario changes the surroundings of one process: its mounts, capabilities and limits. What it
expects is a verdict with its reason and its remedy, and then the mode: that it serves, or that it
is refused in so many words.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import Version

from ci.matrix.inside import system

_CGROUPS = "/sys/fs/cgroup"
_BPFFS = "/sys/fs/bpf"
_SMALL = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the prober is to say of one capability: the verdict, and patterns of reason and remedy."""

    verdict: str
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A poorer host.

    Attributes:
        title: what is missing, in a few words.
        apply: makes it so, for the calling process and what it starts.
        expected: by capability.
        mode: what must run; "none": `kmesh run` must refuse.
        refusal: a pattern of what it then says.
        before: only kernels older than this have the trouble.
        otherwise: what is so on the others; None: they must not mind.
        lasting: it cannot be undone: the last of a boot.
        headers: it takes a root with bcc and the kernel's headers (python -m ci.matrix.headers).
        battery: what is to be said of it comes from the behaviour battery, which is left out elsewhere: it
            takes its time, and `kmesh run` has it in full.
    """

    title: str
    apply: Callable[[], None]
    expected: Mapping[str, Expected] = field(default_factory=dict)
    mode: str = "enhanced"
    refusal: str = ""
    before: Version | None = None
    otherwise: Scenario | None = None
    lasting: bool = False
    headers: bool = False
    battery: bool = False


def _without(*capabilities: str) -> Callable[[], None]:
    return lambda: system.drop(capabilities)


def _no_btf() -> None:
    system.mount("tmpfs", "/sys/kernel/btf")


def _no_cgroup2() -> None:
    system.unmount(_CGROUPS)


def _cgroup_v1() -> None:
    system.unmount(_CGROUPS)
    system.mount("tmpfs", _CGROUPS)
    system.mount("cgroup", f"{_CGROUPS}/systemd", data="none,name=systemd")


def _hybrid() -> None:
    _cgroup_v1()
    system.mount("cgroup2", f"{_CGROUPS}/unified")


def _cgroup_read_only() -> None:
    system.read_only(_CGROUPS)


def _no_bpffs() -> None:
    system.unmount(_BPFFS)


def _no_bpffs_no_right() -> None:
    _no_bpffs()
    system.drop(["SYS_ADMIN"])


def _read_only_root() -> None:
    system.read_only("/")


def _no_unprivileged_bpf() -> None:
    Path("/proc/sys/kernel/unprivileged_bpf_disabled").write_text("1")


def _small_memlock() -> None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (_SMALL, _SMALL))
    system.drop(["SYS_RESOURCE"])


def _lockdown() -> None:
    state = Path("/sys/kernel/security/lockdown")
    if "[confidentiality]" not in state.read_text():  # it can be raised once
        state.write_text("confidentiality")


_BPF = Expected(verdict="denied", reason="CAP_BPF or CAP_SYS_ADMIN is not held", remedy="--cap-add")
_MEMLOCK = Expected(verdict="denied", reason="charges maps to it", remedy="ulimit -l unlimited")
_MEMCG_ACCOUNTING = Version("5.11")

SCENARIOS: dict[str, Scenario] = {
    "plain": Scenario(title="nothing is missing", apply=lambda: None),
    "no-btf": Scenario(
        title="no BTF",
        apply=_no_btf,
        expected={
            "btf": Expected(verdict="absent", reason="vmlinux", remedy="CONFIG_DEBUG_INFO_BTF"),
            "fields.telemetry.telemetry": Expected(
                verdict="absent", reason="BTF", remedy="BTF|headers"
            ),
        },
        mode="compat",
    ),
    "no-btf-headers": Scenario(
        title="no BTF, the kernel's headers and bcc",
        apply=_no_btf,
        expected={
            "btf": Expected(verdict="absent", reason="vmlinux", remedy="CONFIG_DEBUG_INFO_BTF"),
            **{
                f"fields.{name}.{name}": Expected(
                    verdict="present", reason="by the kernel's headers"
                )
                for name in ("accelerate", "telemetry")
            },
            **{
                f"load.{name}": Expected(verdict="present")
                for name in ("accelerate.accelerate", "enhanced.request", "telemetry.telemetry")
            },
        },
        headers=True,
    ),
    "without-bpf": Scenario(title="without CAP_BPF (SYS_ADMIN held)", apply=_without("BPF")),
    "without-perfmon": Scenario(
        title="without CAP_PERFMON (SYS_ADMIN held)", apply=_without("PERFMON")
    ),
    "without-sys-admin": Scenario(
        title="without CAP_SYS_ADMIN",
        apply=_without("SYS_ADMIN"),
        expected={
            "capability.sys_admin": Expected(
                verdict="denied", reason="CAP_SYS_ADMIN is not held", remedy="--cap-add SYS_ADMIN"
            ),
            # Namespaces cannot be entered: neither to try anything, nor for the gate to be in pods'.
            "http.exchange": Expected(
                verdict="denied", reason="network namespace", remedy="CAP_SYS_ADMIN"
            ),
        },
        mode="compat",
        battery=True,
    ),
    "without-net-admin": Scenario(
        title="without CAP_NET_ADMIN (SYS_ADMIN held)",
        apply=_without("NET_ADMIN"),
        expected={
            "load.compat.connect4": Expected(
                verdict="denied", reason="CAP_NET_ADMIN is not held", remedy="--cap-add NET_ADMIN"
            )
        },
        mode="none",
        refusal="CAP_NET_ADMIN is not held",
        before=Version("6.9"),  # bpf_token_capable(): SYS_ADMIN stands in for it
        otherwise=Scenario(
            title="without CAP_NET_ADMIN (SYS_ADMIN held)",
            apply=_without("NET_ADMIN"),
            expected={  # for programs alone: no namespace can be made ready to try them in
                "http.exchange": Expected(
                    verdict="denied", reason="CAP_NET_ADMIN", remedy="CAP_NET_ADMIN"
                )
            },
            mode="compat",
            battery=True,
        ),
    ),
    "without-sys-resource": Scenario(
        title="without CAP_SYS_RESOURCE",
        apply=_without("SYS_RESOURCE"),
        expected={"memlock": _MEMLOCK},
        mode="none",
        refusal="RLIMIT_MEMLOCK",
        before=_MEMCG_ACCOUNTING,
    ),
    "without-bpf-sys-admin": Scenario(
        title="without CAP_BPF and CAP_SYS_ADMIN",
        apply=_without("BPF", "SYS_ADMIN"),
        expected={"capability.bpf": _BPF},
        mode="none",
        refusal="capability.bpf is denied",
    ),
    "without-net-admin-sys-admin": Scenario(
        title="without CAP_NET_ADMIN and CAP_SYS_ADMIN",
        apply=_without("NET_ADMIN", "SYS_ADMIN"),
        expected={
            "capability.net_admin": Expected(
                verdict="denied", reason="CAP_NET_ADMIN", remedy="--cap-add NET_ADMIN"
            )
        },
        mode="none",
        refusal="capability.net_admin is denied",
    ),
    "without-perfmon-sys-admin": Scenario(
        title="without CAP_PERFMON and CAP_SYS_ADMIN",
        apply=_without("PERFMON", "SYS_ADMIN"),
        expected={
            "capability.perfmon": Expected(
                verdict="denied", reason="CAP_PERFMON", remedy="--cap-add PERFMON"
            ),
            "kernel.memory": Expected(verdict="denied", reason="CAP_PERFMON", remedy="--cap-add"),
            "load.compat.connect4": Expected(
                verdict="denied", reason="CAP_PERFMON", remedy="--cap-add PERFMON"
            ),
        },
        mode="none",
        refusal="CAP_PERFMON",
    ),
    "no-cgroup2": Scenario(
        title="cgroup2 is not mounted",
        apply=_no_cgroup2,
        expected={"cgroup2": Expected(verdict="absent", reason="not mounted", remedy="mount")},
        mode="none",
        refusal="cgroup2 is absent",
    ),
    "cgroup-v1": Scenario(
        title="cgroup v1 only",
        apply=_cgroup_v1,
        expected={"cgroup2": Expected(verdict="absent", reason="layout: v1", remedy="mount")},
        mode="none",
        refusal="cgroup2 is absent",
    ),
    "cgroup-hybrid": Scenario(
        title="cgroup v1, and v2 beside it",
        apply=_hybrid,
        expected={"cgroup2": Expected(verdict="present", reason="layout: hybrid")},
    ),
    "cgroup-read-only": Scenario(
        title="cgroup2 is read-only",
        apply=_cgroup_read_only,
        expected={"cgroup2": Expected(verdict="denied", reason="not writable", remedy="mount")},
        mode="none",
        refusal="cgroup2 is denied",
    ),
    "no-bpffs": Scenario(
        title="bpffs is not mounted",
        apply=_no_bpffs,
        expected={"bpffs": Expected(verdict="present", reason="`kmesh run` mounts it")},
    ),
    "no-bpffs-no-right": Scenario(
        title="bpffs is not mounted, no CAP_SYS_ADMIN",
        apply=_no_bpffs_no_right,
        expected={
            "bpffs": Expected(verdict="denied", reason="CAP_SYS_ADMIN", remedy="mount -t bpf")
        },
        mode="none",
        refusal="bpffs is denied",
    ),
    "read-only-root": Scenario(title="the root is read-only", apply=_read_only_root),
    "small-memlock": Scenario(
        title=f"RLIMIT_MEMLOCK is {_SMALL >> 10} KiB, no CAP_SYS_RESOURCE",
        apply=_small_memlock,
        expected={"memlock": _MEMLOCK},
        mode="none",
        refusal="RLIMIT_MEMLOCK",
        before=_MEMCG_ACCOUNTING,
    ),
    "no-unprivileged-bpf": Scenario(
        title="unprivileged BPF is off", apply=_no_unprivileged_bpf, lasting=True
    ),
    "lockdown": Scenario(
        title="lockdown=confidentiality",
        apply=_lockdown,
        expected={
            "kernel.memory": Expected(
                verdict="denied", reason="lockdown=confidentiality", remedy="lockdown=integrity"
            )
        },
        mode="compat",
        lasting=True,
    ),
}
