# SPDX-License-Identifier: Apache-2.0
"""Reading what a host says about itself: /proc and /sys, one small parser each.

Every function takes the root directory to read under, so that tests can give it another host.
Nothing here raises: what cannot be read is empty, and the probes say what that means.
"""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

# enum of linux/capability.h, by number
CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
KERNEL_VERSION = "head: version"  # no option's name has a space
_CONFIG_HEAD = re.compile(r"^# Linux/\S+ (\d\S+) Kernel Configuration", re.MULTILINE)
_NT_GNU_BUILD_ID = 3


def text(path: Path) -> str:
    """A small file's content without its last newline; "" when it cannot be read."""
    try:
        return path.read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""


def key_values(content: str, separator: str) -> dict[str, str]:
    """Lines of `key SEPARATOR value`; values lose their quotes."""
    pairs = (line.split(separator, 1) for line in content.splitlines() if separator in line)
    return {key.strip(): value.strip().strip('"') for key, value in pairs}


def kconfig(root: Path, release: str) -> tuple[dict[str, str], str]:
    """The kernel's build configuration and the file it is from; ({}, "") when there is none."""
    places = (
        "proc/config.gz",
        f"boot/config-{release}",
        f"usr/lib/modules/{release}/config",
        f"lib/modules/{release}/config",
        f"host/boot/config-{release}",
    )
    for place in places:
        options = read_kconfig(root / place)
        if options:
            return options, f"/{place}"
    return {}, ""


def read_kconfig(path: Path) -> dict[str, str]:
    """Options without the CONFIG_ prefix from a plain or gzipped config file; {} when unreadable.

    The kernel's version, which stands in the head, is under KERNEL_VERSION.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, ValueError):
        return {}
    text = data.decode(errors="replace")
    options = {
        name: value.strip('"')
        for name, found, value in (line[7:].partition("=") for line in text.splitlines())
        if found and name.replace("_", "").isalnum()
    }
    head = _CONFIG_HEAD.search(text[:200])
    return {KERNEL_VERSION: head.group(1), **options} if head and options else options


def build_id(root: Path) -> str:
    """The kernel's GNU build id, from the ELF notes in /sys/kernel/notes."""
    try:
        notes = (root / "sys/kernel/notes").read_bytes()
    except OSError:
        return ""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("=III", notes, at)
        name_end = at + 12 + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[at + 12 : at + 15] == b"GNU":
            return notes[name_end : name_end + size].hex()
        at = name_end + (size + 3 & ~3)
    return ""


def lockdown(root: Path, options: dict[str, str]) -> str:
    """none, integrity or confidentiality: from securityfs, else as booted, else as built."""
    said = text(root / "sys/kernel/security/lockdown")
    if "[" in said:
        return said.split("[", 1)[1].split("]", 1)[0]
    command_line = text(root / "proc/cmdline").split()
    asked = [
        word.removeprefix("lockdown=") for word in command_line if word.startswith("lockdown=")
    ]
    if asked:
        return asked[-1]
    if options.get("SECURITY_LOCKDOWN_LSM") != "y":
        return "none" if options else "unknown"
    if options.get("LOCK_DOWN_IN_EFI_SECURE_BOOT") == "y":  # a distribution's patch
        return "unknown"
    forced = ("CONFIDENTIALITY", "INTEGRITY", "NONE")
    found = (name for name in forced if options.get(f"LOCK_DOWN_KERNEL_FORCE_{name}") == "y")
    return next(found, "unknown").lower()


def capabilities(status: dict[str, str]) -> frozenset[str]:
    """The effective capabilities in /proc/self/status, without the CAP_ prefix."""
    mask = int(status.get("CapEff") or "0", 16)
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def mounts(root: Path) -> list[tuple[str, str, str]]:
    """Filesystem type, mount point and mount options, from /proc/self/mountinfo (proc(5))."""
    found = []
    for line in text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()[:1]
        if len(fields) > 5 and kind:
            found.append((kind[0], fields[4].encode().decode("unicode_escape"), fields[5]))
    return found


def cgroups(found: list[tuple[str, str, str]]) -> tuple[str, str, bool]:
    """Layout (v2, hybrid, v1, none), where cgroup2 is mounted, and whether that is writable."""
    unified = [(where, options) for kind, where, options in found if kind == "cgroup2"]
    old = any(kind == "cgroup" for kind, *_ in found)
    if not unified:
        return ("v1" if old else "none"), "", False
    where, options = unified[0]
    return ("hybrid" if old else "v2"), where, "rw" in options.split(",")


def container(root: Path, environment: dict[str, str]) -> str:
    """kubernetes, docker, podman or "" for none that is known."""
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    return "docker" if (root / ".dockerenv").exists() else ""


def distribution(root: Path, *, inside: bool = False) -> dict[str, str]:
    """os-release of the host where it is mounted at /host, else of this root.

    Args:
        root: where it is read.
        inside: this root is an image's: what it says is not the host's, whose kernel is judged.
    """
    own = () if inside else ("etc/os-release", "usr/lib/os-release")
    for place in ("host/etc/os-release", "host/usr/lib/os-release", *own):
        if found := key_values(text(root / place), "="):
            return found
    return {}
