# SPDX-License-Identifier: Apache-2.0
"""BTF, the kernel's description of its own types, read through libbpf.

See https://docs.kernel.org/bpf/btf.html for the layout of struct btf_type.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.bpf.lib import BpfError, captured_log, lib

_HEAD = 12  # struct btf_type: name_off, info, size or type


class Kind(IntEnum):
    """The kinds of BTF type that Kmesh asks for (BTF_KIND_*)."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FUNC = 12
    VAR = 14
    DATASEC = 15


class _Type(ctypes.Structure):
    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("info", ctypes.c_uint32),
        ("size_or_type", ctypes.c_uint32),
    )


class _Member(ctypes.Structure):
    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
    )


class _EnumValue(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("value", ctypes.c_int32))


def _open(path: Path | None, base: Btf | None) -> int | None:
    if path is None:
        handle = lib().btf__load_vmlinux_btf()
    elif base is None:
        handle = lib().btf__parse(os.fsencode(path), None)
    else:
        handle = lib().btf__parse_split(os.fsencode(path), base._handle)  # noqa: SLF001
    return int(handle) if handle else None


class Btf:
    """A BTF blob, a context manager that frees it.

    Args:
        path: a raw BTF file or an ELF file with a .BTF section; None for the running kernel.
        base: what a module's BTF at `path` builds upon, the kernel's; to be kept open as long.

    Raises:
        BpfError: there is none, or it is not BTF.
    """

    def __init__(self, path: Path | None = None, *, base: Btf | None = None) -> None:
        with captured_log() as log:
            self._handle: int | None = _open(path, base)
        if not self._handle:
            what = f"cannot read BTF from {path or 'the running kernel'}"
            raise BpfError(what, ctypes.get_errno(), log="".join(log))

    @classmethod
    def from_bytes(cls, data: bytes, *, what: str = "the given bytes") -> Self:
        """Read a .BTF section's content that is in memory already.

        Args:
            data: raw BTF of this machine's byte order or the other.
            what: where it is from, for the error.

        Raises:
            BpfError: it is not BTF.
        """
        found = cls.__new__(cls)
        with captured_log() as log:
            handle = lib().btf__new(data, len(data))
        if not handle:
            raise BpfError(f"cannot read BTF from {what}", ctypes.get_errno(), log="".join(log))
        found._handle = handle  # noqa: SLF001 - this class's own
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._handle:
            lib().btf__free(self._handle)
            self._handle = None

    def __len__(self) -> int:
        """How many types there are, with void as number 0."""
        return int(lib().btf__type_cnt(self._handle))

    def find(self, name: str, kind: Kind) -> int | None:
        """The number of the type with this name and kind, or None."""
        found = int(lib().btf__find_by_name_kind(self._handle, name.encode(), kind))
        return found if found >= 0 else None

    def _type(self, number: int) -> tuple[int, _Type]:
        address = lib().btf__type_by_id(self._handle, number)
        if not address:
            raise IndexError(f"no BTF type {number}")
        return address, _Type.from_address(address)

    def _name(self, offset: int) -> str:
        name: bytes | None = lib().btf__name_by_offset(self._handle, offset)
        if name is None:
            raise IndexError(f"no BTF string at {offset}")
        return name.decode()

    def name(self, number: int) -> str:
        return self._name(self._type(number)[1].name_off)

    def kind(self, number: int) -> int:
        return int(self._type(number)[1].info >> 24) & 0x1F

    def size(self, number: int) -> int:
        """Bytes that a value of this type takes."""
        return int(lib().btf__resolve_size(self._handle, number))

    def target(self, number: int) -> int:
        """The type that a pointer, typedef, qualifier, variable or function refers to."""
        return int(self._type(number)[1].size_or_type)

    def resolve(self, number: int) -> int:
        """The type behind typedefs and qualifiers."""
        return int(lib().btf__resolve_type(self._handle, number))

    def members(self, number: int) -> Iterator[tuple[str, int, int]]:
        """The members of a struct or union: name, type number, offset in bits."""
        address, head = self._type(number)
        bitfields = bool(head.info >> 31)
        for index in range(head.info & 0xFFFF):
            at = address + _HEAD + index * ctypes.sizeof(_Member)
            member = _Member.from_address(at)
            offset = member.offset & 0xFFFFFF if bitfields else member.offset
            yield self._name(member.name_off), member.type, offset

    def variables(self, number: int) -> Iterator[tuple[int, int, int]]:
        """What a DATASEC holds: type number, offset in bytes, size in bytes."""
        address, head = self._type(number)
        for index in range(head.info & 0xFFFF):
            at = address + _HEAD + index * ctypes.sizeof(_Member)
            kind, offset, size = (ctypes.c_uint32 * 3).from_address(at)
            yield kind, offset, size

    def string(self, offset: int) -> str:
        """The string at an offset of the string table (.BTF.ext refers to names so)."""
        return self._name(offset)

    def array(self, number: int) -> tuple[int, int]:
        """An array's element type number and length."""
        address, _ = self._type(number)
        element, _index, length = (ctypes.c_uint32 * 3).from_address(address + _HEAD)
        return element, length

    def enum(self, number: int) -> dict[str, int]:
        """The values of an enum by name."""
        address, head = self._type(number)
        start = address + _HEAD
        values = (_EnumValue * (head.info & 0xFFFF)).from_address(start)
        return {self._name(value.name_off): value.value for value in values}
