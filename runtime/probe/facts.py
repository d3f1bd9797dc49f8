# SPDX-License-Identifier: Apache-2.0
"""The first evidence: what the host says about itself and about this process."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.probe import host
from runtime.probe.kernelrelease import KernelRelease, parse_release

_HIDDEN = ("kconfig", "upstream")
_ALL_IDS = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A kernel and, when it is the running one, this process on it.

    Attributes:
        version: `uname -v`.
        build_id: GNU build id in hex, "" when not known.
        kconfig: build options without CONFIG_, empty when not found.
        capabilities: effective ones without CAP_; None when judged offline.
        cgroup: v2, hybrid, v1 or none.
        bpffs: where a BPF file system is mounted, "" for nowhere.
        memlock: RLIMIT_MEMLOCK in bytes, -1 for no limit.
        seccomp: 0 off, 1 strict, 2 a filter.
        user_namespace: this process is in another than the first one, where no capability counts.
    """

    release: str
    version: str = ""
    machine: str = ""
    distribution: str = ""
    distribution_id: str = ""
    upstream: KernelRelease = field(default_factory=lambda: KernelRelease(None))
    build_id: str = ""
    kconfig: dict[str, str] = field(default_factory=dict)
    kconfig_source: str = ""
    btf_source: str = ""
    lockdown: str = "unknown"
    capabilities: frozenset[str] | None = None
    user_namespace: bool = False
    seccomp: int = 0
    container: str = ""
    cgroup: str = ""
    cgroup2_mount: str = ""
    cgroup2_writable: bool = False
    bpffs: str = ""
    filesystems: frozenset[str] = frozenset()
    memlock: int = -1
    jit: str = ""
    unprivileged_bpf: str = ""
    livepatches: tuple[str, ...] = ()

    def holds(self, *names: str) -> bool:
        """Whether this process may use one of these capabilities (False offline)."""
        if self.capabilities is None or self.user_namespace:
            return False
        return any(name in self.capabilities for name in names)

    def option(self, name: str) -> str | None:
        """A build option: "y", "m", a value, "n"; None when the configuration is not known."""
        return self.kconfig.get(name, "n") if self.kconfig else None

    def to_json(self) -> dict[str, Any]:
        """The facts that the report shows: all but the whole configuration."""
        shown = {name: getattr(self, name) for name in self.__slots__ if name not in _HIDDEN}
        shown["capabilities"] = None if self.capabilities is None else sorted(self.capabilities)
        shown["filesystems"] = sorted(self.filesystems)
        shown["livepatches"] = list(self.livepatches)
        shown["upstream_version"] = str(self.upstream.version or "")
        shown["vendor"] = self.upstream.vendor
        return shown


def running_facts(root: Path = Path("/")) -> Facts:
    """Facts of the running kernel and of this process.

    Args:
        root: where /proc, /sys and /etc are read: another directory in tests.
    """
    uname = platform.uname()
    status = host.key_values(host.text(root / "proc/self/status"), ":")
    options, source = host.kconfig(root, uname.release)
    mounted = host.mounts(root)
    layout, unified, writable = host.cgroups(mounted)
    container = host.container(root, dict(os.environ))
    inside = bool(container or os.environ.get("KMESH_IMAGE_DIGEST"))
    system = host.distribution(root, inside=inside)
    signature = host.text(root / "proc/version_signature")
    built = options.get(host.KERNEL_VERSION, "")
    btf = root / "sys/kernel/btf/vmlinux"
    return Facts(
        release=uname.release,
        version=uname.version,
        machine=uname.machine,
        distribution=system.get("PRETTY_NAME", ""),
        distribution_id=system.get("ID", ""),
        upstream=parse_release(
            uname.release, version=uname.version, signature=signature, built=built
        ),
        build_id=host.build_id(root),
        kconfig=options,
        kconfig_source=source,
        btf_source=str(btf) if btf.exists() else "",
        lockdown=host.lockdown(root, options),
        capabilities=host.capabilities(status),
        user_namespace=_in_user_namespace(root),
        seccomp=int(status.get("Seccomp") or 0),
        container=container,
        cgroup=layout,
        cgroup2_mount=unified,
        cgroup2_writable=writable,
        bpffs=_bpffs([where for kind, where, _ in mounted if kind == "bpf"]),
        filesystems=frozenset(host.text(root / "proc/filesystems").split()),
        memlock=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        jit=host.text(root / "proc/sys/net/core/bpf_jit_enable"),
        unprivileged_bpf=host.text(root / "proc/sys/kernel/unprivileged_bpf_disabled"),
        livepatches=_names(root / "sys/kernel/livepatch"),
    )


def offline_facts(*, release: str | None, config: Path | None, btf: Path | None) -> Facts:
    """Facts of a kernel that is not running: its release and configuration, nothing of a process."""
    options = host.read_kconfig(config) if config else {}
    return Facts(
        release=release or "unknown",
        upstream=parse_release(release or "", built=options.get(host.KERNEL_VERSION, "")),
        kconfig=options,
        kconfig_source=str(config) if options else "",
        btf_source=str(btf) if btf else "",
    )


def _in_user_namespace(root: Path) -> bool:
    """The first namespace maps all ids to themselves (user_namespaces(7))."""
    fields = host.text(root / "proc/self/uid_map").split()
    return bool(fields) and fields != ["0", "0", str(_ALL_IDS)]


def _bpffs(places: list[str]) -> str:
    """The usual place first: others belong to other tools."""
    return "/sys/fs/bpf" if "/sys/fs/bpf" in places else next(iter(places), "")


def _names(directory: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in directory.iterdir())) if directory.is_dir() else ()
