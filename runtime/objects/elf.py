# SPDX-License-Identifier: Apache-2.0
"""The ELF side of an object: sections, symbols and relocations, bounds-checked before they are read.

pyelftools trusts what a header says about sizes and counts. Everything that could make it read past
the file, or for minutes, is refused here first.
"""

from __future__ import annotations

import io
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.objects.info import ObjectError

_HEADER = 64  # Elf64_Ehdr
_SYMBOL, _REL = 24, 16  # Elf64_Sym, Elf64_Rel
_MAX_FILE = 64 << 20
_EM_BPF, _ET_REL = 247, 1
_EXECUTABLE, _COMPRESSED = 0x4, 0x800


@dataclass(frozen=True, slots=True)
class Section:
    index: int
    name: str
    type: str
    executable: bool
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str
    kind: str  # STT_FUNC, STT_SECTION, …
    section: int | None  # None: not defined in this object
    value: int
    size: int


@dataclass(frozen=True, slots=True)
class Elf:
    """What the inspector needs of an ELF file; `relocations` maps (section, offset) to a symbol."""

    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: dict[tuple[int, int], Symbol] = field(default_factory=dict)

    def section(self, name: str) -> Section | None:
        return next((section for section in self.sections if section.name == name), None)


def read_elf(path: Path, data: bytes) -> Elf:
    """Read an object's ELF structure.

    Args:
        path: its name, for errors.
        data: the whole file.

    Raises:
        ObjectError: empty, foreign, truncated or malformed.
    """
    _check_header(path, data)
    try:
        return _parse(path, data)
    except ObjectError:
        raise
    except Exception as error:
        # pyelftools lets through whatever its parser trips over.
        raise ObjectError(path, f"malformed ELF ({type(error).__name__}: {error})") from error


def _check_header(path: Path, data: bytes) -> None:
    rebuild = "compile it again with `make bpf`"
    if not data:
        raise ObjectError(path, "the file is empty", hint=rebuild)
    if len(data) > _MAX_FILE:
        raise ObjectError(path, f"{len(data)} bytes is too large for a BPF object")
    if data[:4] != b"\x7fELF"[: len(data)]:
        raise ObjectError(path, "not an ELF file", hint=rebuild)
    if len(data) < _HEADER:
        raise ObjectError(path, f"truncated: only {len(data)} bytes", hint=rebuild)
    if data[4] != 2:
        raise ObjectError(path, "a 32-bit ELF file, not a BPF object")
    order = "<" if data[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", data, 16)
    if machine != _EM_BPF:
        raise ObjectError(path, f"made for another machine (ELF machine {machine}), not for BPF")
    if (order == "<") != (sys.byteorder == "little"):
        other = "big" if order == ">" else "little"
        raise ObjectError(
            path,
            f"{other}-endian, this machine is {sys.byteorder}-endian",
            hint="compile it with `clang -target bpf`, which takes the machine's byte order",
        )
    if kind != _ET_REL:
        raise ObjectError(path, f"not a relocatable object (ELF type {kind})")
    _check_table(path, data, order)


def _check_table(path: Path, data: bytes, order: str) -> None:
    """Every section must lie in the file, and be no more than its bytes."""
    (start,) = struct.unpack_from(order + "Q", data, 40)
    entry, count = struct.unpack_from(order + "HH", data, 58)
    if not start or not count or entry != _HEADER:
        raise ObjectError(path, "malformed: it has no section table")
    if start + entry * count > len(data):
        raise ObjectError(path, "truncated: its section table ends beyond the file")
    for index in range(count):
        at = start + index * entry
        kind, flags, _address, offset, size = struct.unpack_from(order + "IQQQQ", data, at + 4)
        if kind != 8 and offset + size > len(data):  # SHT_NOBITS takes no bytes
            raise ObjectError(path, f"truncated: section {index} ends beyond the file")
        if flags & _COMPRESSED or size > _MAX_FILE:
            raise ObjectError(path, f"malformed: section {index} is compressed or oversized")
        (entry_size,) = struct.unpack_from(order + "Q", data, at + 56)
        if entry_size != {2: _SYMBOL, 9: _REL, 11: _SYMBOL}.get(kind, entry_size):
            raise ObjectError(path, f"malformed: section {index} has entries of {entry_size} bytes")


def _parse(path: Path, data: bytes) -> Elf:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.relocation import RelocationSection

    elf = ELFFile(io.BytesIO(data))
    raw = list(elf.iter_sections())
    sections = tuple(_section(index, section) for index, section in enumerate(raw))
    table = elf.get_section_by_name(".symtab")
    if table is None or not hasattr(table, "iter_symbols"):
        raise ObjectError(path, "malformed: it has no symbol table")
    symbols = tuple(_symbol(symbol, sections) for symbol in table.iter_symbols())
    relocations = {
        (section["sh_info"], entry["r_offset"]): symbols[entry["r_info_sym"]]
        for section in raw
        # The relocations of .BTF and .BTF.ext are for linkers; there are many and none is needed.
        if isinstance(section, RelocationSection) and not section.name.startswith(".rel.BTF")
        for entry in section.iter_relocations()
    }
    return Elf(sections, symbols, relocations)


def _section(index: int, section: Any) -> Section:
    kind = str(section["sh_type"])
    wanted = kind == "SHT_PROGBITS"
    return Section(
        index=index,
        name=section.name,
        type=kind,
        executable=bool(section["sh_flags"] & _EXECUTABLE),
        size=section["sh_size"],
        data=section.data() if wanted else b"",
    )


def _symbol(symbol: Any, sections: tuple[Section, ...]) -> Symbol:
    kind, index = str(symbol["st_info"]["type"]), symbol["st_shndx"]
    inside = index if isinstance(index, int) and index < len(sections) else None
    name = symbol.name
    if kind == "STT_SECTION" and inside is not None:
        name = sections[inside].name
    return Symbol(name, kind, inside, symbol["st_value"], symbol["st_size"])
