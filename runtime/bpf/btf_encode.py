# SPDX-License-Identifier: Apache-2.0
"""BTF written: just enough of it for libbpf to relocate the fields of a few structures against.

See https://docs.kernel.org/bpf/btf.html for the layout. Members stand in the order given, which need
not be that of their offsets: libbpf looks them up by name, and this blob goes to no kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.bpf.btf import Kind

_MAGIC, _VERSION, _HEADER = 0xEB9F, 1, struct.Struct("=HBBIIIII")
_TYPE, _MEMBER, _INT = struct.Struct("=III"), struct.Struct("=III"), struct.Struct("=I")
_SIGNED = 1 << 24


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer type of 1, 2, 4 or 8 bytes."""

    size: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer, to what does not matter: libbpf does not follow pointers."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A struct or a union: its members that are of interest, at offsets in bytes.

    `name` is "" for what only stands inside another one: it is not looked up by its name.
    """

    name: str
    size: int
    members: Sequence[tuple[str, int, Type]]
    union: bool = False


Type = Integer | Pointer | Structure


def encode(structures: Sequence[Structure]) -> bytes:
    """Raw BTF of this machine's byte order that knows these structures."""
    made = _Encoder()
    for each in structures:
        made.add(each)
    return made.blob()


class _Encoder:
    def __init__(self) -> None:
        self._strings = bytearray(b"\0")
        self._types: list[bytes] = []
        self._known: dict[Integer | Pointer, int] = {}

    def add(self, wanted: Type) -> int:
        """A type's number; one that is in use already is not written again."""
        if isinstance(wanted, Structure):
            return self._structure(wanted)
        if wanted not in self._known:
            self._known[wanted] = self._append(_scalar(wanted, self._string(_name(wanted))))
        return self._known[wanted]

    def _structure(self, wanted: Structure) -> int:
        members = b"".join(
            _MEMBER.pack(self._string(name), self.add(kind), offset * 8)
            for name, offset, kind in wanted.members
        )
        kind = Kind.UNION if wanted.union else Kind.STRUCT
        head = _TYPE.pack(self._string(wanted.name), kind << 24 | len(wanted.members), wanted.size)
        return self._append(head + members)

    def _append(self, encoded: bytes) -> int:
        self._types.append(encoded)
        return len(self._types)

    def _string(self, text: str) -> int:
        if not text:
            return 0
        offset = len(self._strings)
        self._strings += text.encode() + b"\0"
        return offset

    def blob(self) -> bytes:
        types = b"".join(self._types)
        header = _HEADER.pack(
            _MAGIC, _VERSION, 0, _HEADER.size, 0, len(types), len(types), len(self._strings)
        )
        return header + types + self._strings


def _name(wanted: Integer | Pointer) -> str:
    if isinstance(wanted, Pointer):
        return ""
    return f"{'s' if wanted.signed else 'u'}{wanted.size * 8}"


def _scalar(wanted: Integer | Pointer, name: int) -> bytes:
    if isinstance(wanted, Pointer):
        return _TYPE.pack(0, Kind.PTR << 24, 0)
    encoding = (_SIGNED if wanted.signed else 0) | wanted.size * 8
    return _TYPE.pack(name, Kind.INT << 24, wanted.size) + _INT.pack(encoding)
