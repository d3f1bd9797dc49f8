# SPDX-License-Identifier: Apache-2.0
"""The code of an object: which program calls which helpers and kfuncs, through its subprograms.

Instruction encoding: RFC 9669. A call instruction names a helper (source register 0), or a
function of the object or of the kernel (source register 1 and a relocation).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from runtime.objects.elf import Elf, Section, Symbol

_INSN = struct.Struct("<BBhi")
_CALL, _LDDW = 0x85, 0x18
_HELPER_CALL, _FUNCTION_POINTER = 0, 4

Place = tuple[int, int]  # section index, offset in bytes


@dataclass(slots=True)
class Function:
    name: str
    section: int
    start: int
    size: int
    helpers: set[int] = field(default_factory=set)
    kfuncs: set[str] = field(default_factory=set)
    calls: set[Place] = field(default_factory=set)


def functions(elf: Elf) -> dict[Place, Function]:
    """Every function of the object by place, with its own calls."""
    found: dict[Place, Function] = {}
    for symbol in elf.symbols:
        section = _code_of(elf, symbol)
        if section is None or symbol.value + symbol.size > section.size or symbol.value % 8:
            continue
        function = Function(symbol.name, section.index, symbol.value, symbol.size)
        for offset, instruction in _instructions(section, symbol.value, symbol.size):
            _note(function, elf, offset, instruction)
        found[section.index, symbol.value] = function
    return found


def closure(found: dict[Place, Function], root: Function) -> list[Function]:
    """A program and all the functions that it reaches."""
    seen: dict[Place, Function] = {}
    todo: list[Place] = [(root.section, root.start)]
    while todo:
        place = todo.pop()
        if place in found and place not in seen:
            seen[place] = found[place]
            todo.extend(found[place].calls)
    return list(seen.values())


def _code_of(elf: Elf, symbol: Symbol) -> Section | None:
    if symbol.kind != "STT_FUNC" or symbol.section is None or not symbol.size:
        return None
    section = elf.sections[symbol.section]
    return section if section.executable and section.data else None


def _instructions(
    section: Section, start: int, size: int
) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Offset, and (opcode, source register, immediate), of what can refer to a function."""
    end = start + size - size % 8
    skip = False
    for index, (opcode, registers, _offset, immediate) in enumerate(
        _INSN.iter_unpack(section.data[start:end])
    ):
        if not skip and opcode in (_CALL, _LDDW):
            yield start + index * 8, (opcode, registers >> 4, immediate)
        skip = not skip and opcode == _LDDW  # its second half is data


def _note(function: Function, elf: Elf, offset: int, instruction: tuple[int, int, int]) -> None:
    opcode, source, immediate = instruction
    target = elf.relocations.get((function.section, offset))
    if opcode == _CALL and source == _HELPER_CALL and target is None:
        function.helpers.add(immediate)
    elif opcode == _CALL and target is not None and target.section is None:
        function.kfuncs.add(target.name)
    elif opcode == _CALL:
        function.calls.add(_called(function, offset, immediate, target))
    elif target is not None and target.section is not None:
        if elf.sections[target.section].executable:  # a callback (bpf_loop and the like)
            function.calls.add((target.section, target.value + _addend(target, immediate)))
    elif source == _FUNCTION_POINTER:
        function.calls.add((function.section, offset + (immediate + 1) * 8))


def _called(function: Function, offset: int, immediate: int, target: Symbol | None) -> Place:
    """Where a local call goes: relative to itself, or to what its relocation names."""
    if target is None:
        return function.section, offset + (immediate + 1) * 8
    assert target.section is not None
    if target.kind == "STT_SECTION":
        return target.section, target.value + (immediate + 1) * 8
    return target.section, target.value


def _addend(target: Symbol, immediate: int) -> int:
    return immediate if target.kind == "STT_SECTION" else 0
