# SPDX-License-Identifier: Apache-2.0
"""A kernel's BTF cut down to the types that verdicts are made from.

A whole BTF is 3 to 5 MB. What the prober asks of it are the enums that name helpers, program, map
and attach types, the functions whose names begin with `bpf_` (kfuncs are among them), and the
layout of a few structs. Pointers are cut to `void *`, which keeps every offset and size.

The format: https://docs.kernel.org/bpf/btf.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")


class _Kind(IntEnum):
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Bytes behind struct btf_type: a fixed number, and a number for each of its members.
_EXTRA = {
    _Kind.INT: (4, 0),
    _Kind.ARRAY: (12, 0),
    _Kind.STRUCT: (0, 12),
    _Kind.UNION: (0, 12),
    _Kind.ENUM: (0, 8),
    _Kind.FUNC_PROTO: (0, 8),
    _Kind.VAR: (4, 0),
    _Kind.DATASEC: (0, 12),
    _Kind.DECL_TAG: (4, 0),
    _Kind.ENUM64: (0, 12),
}
_REFERRING = {_Kind.TYPEDEF, _Kind.VOLATILE, _Kind.CONST, _Kind.RESTRICT, _Kind.TYPE_TAG}


@dataclass(frozen=True, slots=True)
class BtfType:
    """One type as the file has it; names are offsets into the string section."""

    name: int
    info: int
    size_or_type: int
    extra: bytes

    @property
    def kind(self) -> int:
        return (self.info >> 24) & 0x1F


class _Reader:
    """All types of a BTF file, by number."""

    def __init__(self, blob: bytes) -> None:
        magic, _, _, header, type_at, type_len, str_at, str_len = _HEADER.unpack_from(blob)
        if magic != _MAGIC:
            raise ValueError("not BTF in this machine's byte order")
        self._strings = blob[header + str_at : header + str_at + str_len]
        self.types = [BtfType(0, 0, 0, b"")]
        at, end = header + type_at, header + type_at + type_len
        while at < end:
            name, info, size = _TYPE.unpack_from(blob, at)
            fixed, each = _EXTRA.get((info >> 24) & 0x1F, (0, 0))
            stop = at + _TYPE.size + fixed + each * (info & 0xFFFF)
            self.types.append(BtfType(name, info, size, blob[at + _TYPE.size : stop]))
            at = stop

    def text(self, offset: int) -> bytes:
        return self._strings[offset : self._strings.index(b"\0", offset)]


class _Writer:
    """A new BTF file with the chosen types and what they are made of."""

    def __init__(self, source: _Reader) -> None:
        self._source = source
        self._strings = bytearray(b"\0")
        self._offsets: dict[bytes, int] = {b"": 0}
        self._numbers: dict[int, int] = {0: 0}
        self._types: list[bytes] = []
        # `void *` and a function type without arguments stand for all that were cut.
        self._pointer = self._add(0, _Kind.PTR << 24, 0, b"")
        self._proto = self._add(0, _Kind.FUNC_PROTO << 24, 0, b"")

    def _add(self, name: int, info: int, size_or_type: int, extra: bytes) -> int:
        self._types.append(_TYPE.pack(name, info, size_or_type) + extra)
        return len(self._types)

    def _string(self, offset: int) -> int:
        text = self._source.text(offset)
        if text not in self._offsets:
            self._offsets[text] = len(self._strings)
            self._strings += text + b"\0"
        return self._offsets[text]

    def keep(self, number: int) -> int:
        """Copy a type, and the types that it is made of, and return its new number."""
        if number not in self._numbers:
            self._numbers[number] = self._copy(self._source.types[number])
        return self._numbers[number]

    def _copy(self, old: BtfType) -> int:
        if old.kind in (_Kind.PTR, _Kind.FUNC_PROTO):
            return self._pointer if old.kind == _Kind.PTR else self._proto
        second, extra = old.size_or_type, old.extra
        if old.kind in _REFERRING:
            second = self.keep(second)
        elif old.kind == _Kind.FUNC:
            second = self._proto
        elif old.kind == _Kind.ARRAY:
            element, index, length = struct.unpack("<III", extra)
            extra = struct.pack("<III", self.keep(element), self.keep(index), length)
        elif old.kind in (_Kind.STRUCT, _Kind.UNION):
            extra = self._members("<III", extra, refers=True)
        elif old.kind in (_Kind.ENUM, _Kind.ENUM64):
            layout = "<II" if old.kind == _Kind.ENUM else "<III"
            extra = self._members(layout, extra, refers=False)
        return self._add(self._string(old.name), old.info, second, extra)

    def _members(self, layout: str, extra: bytes, *, refers: bool) -> bytes:
        members = []
        for name, second, *rest in struct.iter_unpack(layout, extra):
            number = self.keep(second) if refers else second
            members.append(struct.pack(layout, self._string(name), number, *rest))
        return b"".join(members)

    def blob(self) -> bytes:
        types, strings = b"".join(self._types), bytes(self._strings)
        sizes = (_HEADER.size, 0, len(types), len(types), len(strings))
        return _HEADER.pack(_MAGIC, 1, 0, *sizes) + types + strings


def subset(blob: bytes, wanted: Callable[[str, int], bool]) -> bytes:
    """Cut a raw BTF file down.

    Args:
        blob: the whole file.
        wanted: says of a type's name and kind (BTF_KIND_*) whether to keep it.

    Returns:
        a raw BTF file with those types, and what their members are made of.

    Raises:
        ValueError: it is not BTF.
    """
    source = _Reader(blob)
    writer = _Writer(source)
    for number, found in enumerate(source.types):
        if number and wanted(source.text(found.name).decode(), found.kind):
            writer.keep(number)
    return writer.blob()


_ENUMS = {
    "bpf_attach_type", "bpf_cmd", "bpf_func_id", "bpf_link_type", "bpf_map_type", "bpf_prog_type",
    "lockdown_reason",
}  # fmt: skip
_STRUCTS = {
    "file", "inet_connection_sock", "inet_sock", "list_head", "sk_msg", "sk_msg_sg", "sk_psock", "sock",
    "sock_common", "socket", "tcp_sock",
}  # fmt: skip


def needed_for_verdicts(name: str, kind: int) -> bool:
    """The types that the prober reads from a kernel that is not running."""
    if kind in (_Kind.ENUM, _Kind.ENUM64):
        return name in _ENUMS
    if kind == _Kind.STRUCT:
        return name in _STRUCTS
    return kind == _Kind.FUNC and name.startswith("bpf_")
