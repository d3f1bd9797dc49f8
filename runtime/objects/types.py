# SPDX-License-Identifier: Apache-2.0
"""The BTF side of an object: its map definitions, and the kernel fields that CO-RE relocates.

Layout of map definitions: libbpf's bpf_helpers.h (`__uint`, `__type`). Layout of .BTF.ext:
https://docs.kernel.org/bpf/btf.html and struct bpf_core_relo in linux/bpf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from runtime.bpf.btf import Btf, Kind
from runtime.objects import uapi
from runtime.objects.elf import Elf
from runtime.objects.info import MapInfo, ObjectError

_CORE_NEEDED = frozenset({0, 1, 3, 4, 5})  # byte offset, byte size, signedness, two shifts
_CORE_EXISTS = 2
_MAX_STEPS = 64
_DATA_SECTIONS = (".rodata", ".data", ".bss", ".kconfig")


def read_maps(path: Path, elf: Elf, btf: Btf) -> tuple[MapInfo, ...]:
    """The maps that an object declares, and the data sections that libbpf makes into maps.

    Raises:
        ObjectError: a definition is not what libbpf's macros make.
    """
    section = btf.find(".maps", Kind.DATASEC)
    declared = [_declared(path, btf, var) for var, *_ in btf.variables(section)] if section else []
    return tuple(declared) + tuple(_data_maps(elf))


def _data_maps(elf: Elf) -> Iterator[MapInfo]:
    for section in elf.sections:
        name = section.name
        if section.size and name.startswith(_DATA_SECTIONS) and "SHT_REL" not in section.type:
            yield MapInfo(
                name=name, type="ARRAY", key_size=4, value_size=section.size, max_entries=1
            )


def _declared(path: Path, btf: Btf, variable: int) -> MapInfo:
    name = btf.name(variable)
    definition = btf.resolve(btf.target(variable))
    if btf.kind(definition) != Kind.STRUCT:
        raise ObjectError(path, f"malformed: the definition of map {name} is no struct")
    numbers = {"type": 0, "key_size": 0, "value_size": 0, "max_entries": 0}
    numbers |= {"map_flags": 0, "pinning": 0}
    for member, kind, _offset in btf.members(definition):
        if member in numbers:
            numbers[member] = _number(path, btf, kind, f"{name}.{member}")
        elif member in ("key", "value"):
            numbers[f"{member}_size"] = _pointed_size(path, btf, kind, f"{name}.{member}")
        elif member == "values":  # a map of maps: its values are descriptors
            numbers["value_size"] = 4
    return MapInfo(
        name=name,
        type=uapi.map_type(numbers["type"]),
        key_size=numbers["key_size"],
        value_size=numbers["value_size"],
        max_entries=numbers["max_entries"],
        flags=numbers["map_flags"],
        pinning=numbers["pinning"],
    )


def _pointed(path: Path, btf: Btf, kind: int, what: str) -> int:
    kind = btf.resolve(kind)
    if btf.kind(kind) != Kind.PTR:
        raise ObjectError(path, f"malformed: {what} is no pointer")
    return btf.target(kind)


def _number(path: Path, btf: Btf, kind: int, what: str) -> int:
    """`__uint(name, n)` is a pointer to an array of n."""
    array = btf.resolve(_pointed(path, btf, kind, what))
    if btf.kind(array) != Kind.ARRAY:
        raise ObjectError(path, f"malformed: {what} is no number")
    return btf.array(array)[1]


def _pointed_size(path: Path, btf: Btf, kind: int, what: str) -> int:
    size = btf.size(_pointed(path, btf, kind, what))
    if size < 0:
        raise ObjectError(path, f"malformed: {what} has no size")
    return size


def core_fields(btf: Btf, extra: bytes) -> tuple[str, ...]:
    """The kernel fields that an object needs, as "struct.field", without those that it tests for.

    Args:
        btf: the object's BTF.
        extra: its .BTF.ext section.
    """
    needed: set[str] = set()
    tested: set[str] = set()
    for kind, root, access in _relocations(btf, extra):
        if kind in _CORE_NEEDED or kind == _CORE_EXISTS:
            name = _field(btf, root, access)
            (tested if kind == _CORE_EXISTS else needed).add(name)
    return tuple(sorted(name for name in needed - tested if "." in name))


def _relocations(btf: Btf, extra: bytes) -> Iterator[tuple[int, int, str]]:
    """Kind, root type and access string of each CO-RE relocation."""
    if len(extra) < 32 or struct.unpack_from("<I", extra, 4)[0] < 32:
        return  # written before CO-RE
    (header,) = struct.unpack_from("<I", extra, 4)
    offset, length = struct.unpack_from("<II", extra, 24)
    body = extra[header + offset : header + offset + length]
    if not body:
        return
    (record,) = struct.unpack_from("<I", body)
    at = 4
    while at + 8 <= len(body) and record >= 16:
        _section, count = struct.unpack_from("<II", body, at)
        at += 8
        for _ in range(min(count, (len(body) - at) // record)):
            _insn, root, access, kind = struct.unpack_from("<IIII", body, at)
            yield kind, root, btf.string(access)
            at += record


def _field(btf: Btf, root: int, access: str) -> str:
    """Spell an access ("0:1:2") out: the root's name and the members on the way."""
    kind = btf.resolve(root)
    names = [btf.name(kind).split("___")[0]]  # ___ separates a flavour (libbpf)
    for step in [int(part) for part in access.split(":")][1:_MAX_STEPS]:
        if btf.kind(kind) == Kind.ARRAY:
            kind = btf.resolve(btf.array(kind)[0])
        elif btf.kind(kind) in (Kind.STRUCT, Kind.UNION):
            name, member, _offset = list(btf.members(kind))[step]
            names += [name] if name else []
            kind = btf.resolve(member)
    return ".".join(names)
