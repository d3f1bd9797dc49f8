# SPDX-License-Identifier: Apache-2.0
"""Helper numbers of a kernel, and headers that call its helpers by them.

libbpf's bpf_helper_defs.h has upstream's numbers. Vendors that add helpers of their own in the middle
shift those behind (helper 165 of openEuler 22.03 is not upstream's 165): objects for such a kernel
are compiled against a copy of libbpf's headers with that kernel's numbers in them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from runtime.bpf.btf import Btf, Kind
from runtime.bpf.lib import BpfError

LIBBPF = Path("/usr/include/bpf")
_DEFINITIONS = "bpf_helper_defs.h"
_PREFIX = "BPF_FUNC_"
# static long (* const bpf_map_update_elem)(struct bpf_map *map, ...) = (void *) 2;
_DEFINITION = re.compile(r"(\(\*\s*(?:const\s+)?bpf_(\w+)\)\([^;]*?=\s*\(void \*\)\s*)(\d+)(\s*;)")
# FN(map_lookup_elem), or since 6.1 FN(map_lookup_elem, 1, ##ctx)
_MAPPER = re.compile(r"#define _+BPF_FUNC_MAPPER\(FN[^)]*\)((?:.*\\\n)+.*)")
_ENTRY = re.compile(r"\bFN\((\w+)(?:,\s*(\d+))?")


def numbers_of_btf(path: Path) -> dict[str, int]:
    """Helper numbers by name, from a kernel's BTF.

    Raises:
        ValueError: it is no BTF, or names no helpers.
    """
    try:
        with Btf(path) as btf:
            enum = btf.find("bpf_func_id", Kind.ENUM)
            members = btf.enum(enum) if enum else {}
    except BpfError as error:
        raise ValueError(f"{path} is no BTF: {error}") from error
    found = {
        name.removeprefix(_PREFIX): number
        for name, number in members.items()
        if name.startswith(_PREFIX)
    }
    if not found:
        raise ValueError(f"{path} names no helpers")
    return found


def numbers_of_header(text: str) -> dict[str, int]:
    """Helper numbers by name, from a kernel's include/uapi/linux/bpf.h; {} where it has none."""
    mapper = _MAPPER.search(text)
    entries = _ENTRY.findall(mapper.group(1)) if mapper else []
    return {name: int(number) if number else index for index, (name, number) in enumerate(entries)}


def shifted(numbers: Mapping[str, int], definitions: str) -> dict[str, int]:
    """The helpers that have other numbers in that kernel than in libbpf's header, with the kernel's."""
    return {
        name: numbers[name]
        for _, name, number, _ in _DEFINITION.findall(definitions)
        if name in numbers and numbers[name] != int(number)
    }


def renumbered(numbers: Mapping[str, int], definitions: str) -> str:
    """The header of libbpf with a kernel's numbers."""

    def one(match: re.Match[str]) -> str:
        head, name, number, tail = match.groups()
        return f"{head}{numbers.get(name, int(number))}{tail}"

    return _DEFINITION.sub(one, definitions)


def own_headers(
    numbers: Mapping[str, int], target: Path, *, libbpf: Path = LIBBPF
) -> dict[str, int]:
    """Put libbpf's headers with a kernel's numbers below a directory, where those differ.

    Args:
        numbers: of that kernel; {} where they are not known.
        target: a directory to give the compiler; made only where it is needed.
        libbpf: where libbpf's headers are.

    Returns:
        the helpers that have other numbers there.
    """
    definitions = (libbpf / _DEFINITIONS).read_text()
    found = shifted(numbers, definitions)
    if found:
        shutil.copytree(libbpf, target / "bpf", dirs_exist_ok=True)
        (target / "bpf" / _DEFINITIONS).write_text(renumbered(numbers, definitions))
    return found
