# SPDX-License-Identifier: Apache-2.0
"""The host that the compile image runs on: its kernel, its distribution, and what tells of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from builder.host.reasons import HostError, Reason
from runtime.compile import evidence as fitting
from runtime.compile.clang import ToolMissingError
from runtime.compile.evidence import Evidence
from runtime.probe import host as proc
from runtime.probe.kernelrelease import parse_release

_HINT = (
    "mount what the host has: -v /sys/kernel/btf:/sys/kernel/btf:ro -v /lib/modules:/lib/modules:ro"
    " -v /usr/src:/usr/src:ro; headers are in Debian's linux-headers-RELEASE and in the kernel-devel of"
    " rpm distributions"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The kernel to compile for.

    Attributes:
        running: it is this one, and may be asked.
        btf, config: its files, where there are any.
        os: the distribution, as image names have it: "debian12".
    """

    release: str
    machine: str
    os: str
    running: bool
    btf: Path | None = None
    config: Path | None = None


def this_host(*, root: Path = Path("/"), os_name: str = "", release: str = "") -> Target:
    """The running kernel, or with `release` another that this host has files of.

    Args:
        root: where the host's /sys, /lib/modules and so on are.
        os_name: what to call the distribution; without, as the host's os-release or kernel says.
        release: the other kernel's `uname -r`.
    """
    uname = os.uname()
    running = not release or release == uname.release
    wanted = release or uname.release
    btf = root / "sys/kernel/btf/vmlinux"
    places = (f"boot/config-{wanted}", f"lib/modules/{wanted}/config", "proc/config.gz")
    config = next((root / place for place in places if (root / place).is_file()), None)
    return Target(
        release=wanted,
        machine=uname.machine,
        os=os_name or _os(root, wanted, uname.version if running else ""),
        running=running,
        btf=btf if running and btf.is_file() else None,
        config=config if running or (config and config.name != "config.gz") else None,
    )


def _os(root: Path, release: str, version: str) -> str:
    said = proc.key_values(proc.text(root / "host/etc/os-release"), "=")
    if said.get("ID"):
        return f"{said['ID']}{said.get('VERSION_ID', '')}"
    return parse_release(release, version=version).vendor.lower().replace("/", "-") or "linux"


def find_evidence(target: Target, *, root: Path = Path("/")) -> list[Evidence]:
    """Everything that there is about a kernel, best first; the packaged headers come last, always.

    Raises:
        HostError: a BTF that was named is none, or not even the packaged headers are there.
    """
    try:
        return fitting.find_evidence(
            target.release, btf=target.btf, running=target.running, root=root
        )
    except ValueError as error:
        raise HostError(
            Reason.BAD_EVIDENCE, str(error), hint="take /sys/kernel/btf/vmlinux of that kernel"
        ) from error
    except ToolMissingError as error:
        raise HostError(Reason.NO_HEADERS, str(error), hint=error.hint) from error


def hint() -> str:
    """What a host could be asked for where what there is does not do."""
    return _HINT


def evidence_hint(target: Target) -> str:
    """What to give for a kernel of which nothing is known."""
    release = target.release
    given = "" if target.running else "--btf FILE (that kernel's /sys/kernel/btf/vmlinux), or "
    return (
        f"{given}its headers in /lib/modules/{release}/build, /usr/src/linux-headers-{release} or"
        f" /usr/src/kernels/{release}; {_HINT}"
    )
