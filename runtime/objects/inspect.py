# SPDX-License-Identifier: Apache-2.0
"""Inspection: from a compiled object to what it needs of a kernel.

The needs of a path are never written down by hand: programs, maps, helpers, kfuncs and kernel
fields are read here, from the very object that will be loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from runtime.bpf.btf import Btf
from runtime.bpf.lib import BpfError, captured_log, lib
from runtime.objects import uapi
from runtime.objects.code import Function, closure, functions
from runtime.objects.elf import Elf, read_elf
from runtime.objects.info import HelperUse, MapInfo, ObjectError, ObjectInfo, ProgramInfo
from runtime.objects.types import core_fields, read_maps

_ATTACH_TYPE_ZERO = "CGROUP_SKB"  # the one type for which attach type 0 is a real one

__all__ = ["HelperUse", "MapInfo", "ObjectError", "ObjectInfo", "ProgramInfo", "inspect_object"]


def inspect_object(path: Path) -> ObjectInfo:
    """Read what an object is made of and what it needs.

    Args:
        path: a compiled object (`clang -target bpf -g`, which `llvm-strip -g` may have been over).

    Raises:
        ObjectError: unreadable, empty, foreign, truncated, malformed, or without a licence, BTF
            or a program.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ObjectError(path, f"cannot read it ({error.strerror})") from error
    elf = read_elf(path, data)
    licence = _licence(path, elf)
    try:
        return _inspect(path, data, elf, licence)
    except ObjectError:
        raise
    except (BpfError, LookupError, ValueError, ArithmeticError) as error:
        raise ObjectError(path, f"malformed BTF or code ({error})") from error
    except Exception as error:
        # struct.error derives from Exception alone.
        raise ObjectError(path, f"malformed ({type(error).__name__}: {error})") from error


def _inspect(path: Path, data: bytes, elf: Elf, licence: str) -> ObjectInfo:
    btf_section, extra = elf.section(".BTF"), elf.section(".BTF.ext")
    if btf_section is None or not btf_section.data:
        raise ObjectError(path, "it carries no BTF", hint="compile it with `clang -g`")
    with Btf.from_bytes(btf_section.data, what=str(path)) as btf:
        maps = read_maps(path, elf, btf)
        fields = core_fields(btf, extra.data) if extra else ()
    programs = tuple(_programs(path, elf))
    if not programs:
        raise ObjectError(path, "it holds no program")
    return ObjectInfo(
        path=path,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        arch="bpfel" if data[5] == 1 else "bpfeb",
        license=licence,
        has_btf=True,
        has_btf_ext=extra is not None and bool(extra.data),
        programs=programs,
        maps=maps,
        kfuncs=tuple(sorted({name for program in programs for name in program.kfuncs})),
        core_fields=fields,
        optional_helpers=_names(elf, ".kmesh.optional"),
        optional_programs=_names(elf, ".kmesh.optional.programs"),
    )


def _names(elf: Elf, name: str) -> tuple[str, ...]:
    section = elf.section(name)
    names = section.data.split(b"\0") if section else ()
    return tuple(sorted({each.decode("ascii", "replace") for each in names if each}))


def _licence(path: Path, elf: Elf) -> str:
    section = elf.section("license")
    text = section.data.split(b"\0")[0].decode("ascii", "replace") if section else ""
    if not text:
        raise ObjectError(
            path,
            "it carries no licence, and the kernel would refuse its helpers",
            hint='add: char LICENSE[] SEC("license") = "GPL";',
        )
    return text


def _programs(path: Path, elf: Elf) -> Iterator[ProgramInfo]:
    found = functions(elf)
    for place, function in found.items():
        section = elf.sections[place[0]]
        if section.name == ".text":
            continue  # subprograms: counted where they are called
        kind, attach = _type_of(path, section.name)
        yield _program(function, section.name, kind, attach, closure(found, function))


def _program(
    function: Function, section: str, kind: str, attach: str, parts: Iterable[Function]
) -> ProgramInfo:
    parts = list(parts)
    helpers = sorted({number for part in parts for number in part.helpers})
    return ProgramInfo(
        name=function.name,
        section=section,
        type=kind,
        attach_type=attach,
        instructions=sum(part.size for part in parts) // 8,
        helpers=tuple(HelperUse(number, uapi.helper(number)) for number in helpers),
        kfuncs=tuple(sorted({name for part in parts for name in part.kfuncs})),
    )


def _type_of(path: Path, section: str) -> tuple[str, str]:
    """Program type and attach type, as libbpf takes them from the section's name."""
    kind, attach = ctypes.c_int(), ctypes.c_int()
    with captured_log():
        result = lib().libbpf_prog_type_by_name(
            section.encode(), ctypes.byref(kind), ctypes.byref(attach)
        )
    if result < 0:
        raise ObjectError(path, f'its section "{section}" names no program type that libbpf knows')
    name = uapi.program_type(kind.value)
    has_attach = attach.value or name == _ATTACH_TYPE_ZERO
    return name, uapi.attach_type(attach.value) if has_attach else ""
