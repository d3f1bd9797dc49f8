# SPDX-License-Identifier: Apache-2.0
"""What a host offers to compile for its kernel, best first: the same for the compile image and at start-up."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from runtime.compile.clang import ToolMissingError
from runtime.compile.numbers import LIBBPF, numbers_of_btf, numbers_of_header, own_headers
from runtime.compile.tree import TreeResult, compile_tree

_UAPI = "include/uapi/linux/bpf.h"
_COMMON = re.compile(r"^(?:include|MAKEARGS := -C)\s+(\S+?)(?:/Makefile)?(?:\s|$)", re.MULTILINE)


class Kind(StrEnum):
    """What objects were made from; earlier is better."""

    PREBUILT = "prebuilt"
    BTF = "btf"
    KHEADERS = "kheaders"
    HEADERS = "headers"
    PACKAGED = "packaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One thing that tells about a kernel: where it is, and its helper numbers where it tells them."""

    kind: Kind
    where: str
    numbers: Mapping[str, int] = field(default_factory=dict)


def find_evidence(
    release: str, *, btf: Path | None, running: bool, root: Path = Path("/")
) -> list[Evidence]:
    """Everything that there is about a kernel, best first; the packaged headers come last, always.

    Args:
        release: its `uname -r`.
        btf: its BTF, where there is one.
        running: it is this one.
        root: where the host's files are.

    Raises:
        ValueError: the BTF is none.
        ToolMissingError: not even the packaged headers are there.
    """
    if not (LIBBPF / "bpf_helpers.h").is_file():
        raise ToolMissingError(
            f"no headers of libbpf in {LIBBPF}",
            hint="install them (Debian: libbpf-dev; rpm: libbpf-devel)",
        )
    found = [Evidence(kind=Kind.BTF, where=str(btf), numbers=numbers_of_btf(btf))] if btf else []
    if running:  # CONFIG_IKHEADERS
        found += _kheaders(root / "sys/kernel/kheaders.tar.xz")
    found += _headers(release, root)
    return [*found, Evidence(kind=Kind.PACKAGED, where=str(LIBBPF))]


def _kheaders(archive: Path) -> Iterator[Evidence]:
    try:
        with tarfile.open(archive) as tar:
            member = next((item for item in tar if item.name.endswith(_UAPI)), None)
            stream = tar.extractfile(member) if member else None
            text = stream.read().decode(errors="replace") if stream else ""
    except (OSError, tarfile.TarError):
        return
    if text:
        yield Evidence(kind=Kind.KHEADERS, where=str(archive), numbers=numbers_of_header(text))


def _headers(release: str, root: Path) -> Iterator[Evidence]:
    for place in header_places(release, root=root):
        header = place / _UAPI
        if header.is_file():
            numbers = numbers_of_header(header.read_text(errors="replace"))
            yield Evidence(kind=Kind.HEADERS, where=str(place), numbers=numbers)
            return


def header_places(release: str, *, root: Path = Path("/")) -> Iterator[Path]:
    """Where distributions put a kernel's headers; links lead where they lead on the host."""
    modules = root / "lib/modules" / release
    starts = [
        *(_on_host(modules / name, root) for name in ("build", "source")),
        root / f"usr/src/linux-headers-{release}",
        root / f"usr/src/kernels/{release}",
    ]
    for start in starts:
        if not start.is_dir():
            continue
        yield start
        # Debian keeps what flavours share in a directory of its own, which the Makefile includes.
        makefile = start / "Makefile"
        text = makefile.read_text(errors="replace") if makefile.is_file() else ""
        for said in _COMMON.findall(text):
            yield root / said.lstrip("/")


def _on_host(link: Path, root: Path) -> Path:
    if link.is_symlink():
        said = link.readlink()
        return root / str(said).lstrip("/") if said.is_absolute() else link.parent / said
    return link


def once(evidence: Iterable[Evidence]) -> Iterator[Evidence]:
    """Evidence that tells what better evidence told already makes the same objects again."""
    seen: list[Mapping[str, int]] = []
    for each in evidence:
        if each.numbers not in seen:
            seen.append(each.numbers)
            yield each


def compile_from(
    evidence: Evidence, sources: Path, out: Path, *, headers: Path
) -> tuple[TreeResult, dict[str, int]]:
    """Compile a tree for the kernel that evidence tells of.

    Args:
        evidence: other than prebuilt objects.
        sources: the tree.
        out: where the objects go.
        headers: a directory of its own, for libbpf's headers with that kernel's numbers in them.

    Returns:
        what was compiled, and the helpers that have other numbers in that kernel.

    Raises:
        CompileError: it does not compile, or a tool is missing.
    """
    found = own_headers(evidence.numbers, headers)
    return compile_tree(sources, out, include=[headers] if found else ()), found


def best(release: str, *, btf: Path | None) -> Evidence:
    """The best evidence about the running kernel; what is damaged is passed over.

    Raises:
        ToolMissingError: there is none.
    """
    readable = btf if btf and os.access(btf, os.R_OK) else None
    try:
        return find_evidence(release, btf=readable, running=True)[0]
    except ValueError:
        return find_evidence(release, btf=None, running=True)[0]
