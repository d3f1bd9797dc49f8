# SPDX-License-Identifier: Apache-2.0
"""A compiled BPF object: opened, adjusted, loaded."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.bpf.lib import BpfError, captured_log, check, lib
from runtime.bpf.maps import BpfMap
from runtime.errors import KmeshError


class LoadError(BpfError):
    """The kernel refused an object; `log` holds the verifier's words, `errno` its reason."""


class _OpenOptions(ctypes.Structure):
    """struct bpf_object_open_opts as far as libbpf 1.0 has it."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("_unused", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program of an object; `fd` is -1 until the object is loaded."""

    name: str
    section: str
    type: int
    attach_type: int
    fd: int

    def pin(self, path: Path) -> None:
        result = lib().bpf_obj_pin(self.fd, os.fsencode(path))
        check(result, f"cannot pin program {self.name} at {path}")


_stand_in: Path | None = None


def relocate_against(btf: Path | None) -> None:
    """Say what stands in for the running kernel's BTF, for all objects that are opened from now on.

    Args:
        btf: a file with raw BTF, or None for what the kernel shows.
    """
    global _stand_in  # noqa: PLW0603 - there is one running kernel
    _stand_in = btf


class BpfObject:
    """An object file in libbpf's hands, a context manager that closes it.

    Args:
        path: the compiled object.
        btf: the BTF to relocate against, or None for the running kernel's or what stands in for it.

    Raises:
        BpfError: it is no BPF object.
    """

    def __init__(self, path: Path, *, btf: Path | None = None) -> None:
        known = btf or _stand_in
        options = _OpenOptions(
            sz=ctypes.sizeof(_OpenOptions),
            btf_custom_path=os.fsencode(known) if known else None,
        )
        self.path = path
        with captured_log() as log:
            self._handle: int | None = lib().bpf_object__open_file(
                os.fsencode(path), ctypes.byref(options)
            )
        if not self._handle:
            raise BpfError(f"cannot open {path}", ctypes.get_errno(), log="".join(log))

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
        """Close the object and its descriptors; what is pinned or attached stays."""
        if self._handle:
            lib().bpf_object__close(self._handle)
            self._handle = None

    def load(self) -> None:
        """Create the maps and load the programs.

        Raises:
            LoadError: the kernel refused, with the verifier's log.
        """
        with captured_log() as log:
            result = lib().bpf_object__load(self._handle)
        if result < 0:
            raise LoadError(f"cannot load {self.path}", -result, log="".join(log))

    def _each(self, advance: str) -> Iterator[int]:
        handle = getattr(lib(), advance)(self._handle, None)
        while handle:
            yield handle
            handle = getattr(lib(), advance)(self._handle, handle)

    def programs(self) -> dict[str, Program]:
        """The object's programs by name."""
        found = (self._program(handle) for handle in self._each("bpf_object__next_program"))
        return {program.name: program for program in found}

    def _program(self, handle: int) -> Program:
        return Program(
            name=lib().bpf_program__name(handle).decode(),
            section=lib().bpf_program__section_name(handle).decode(),
            type=lib().bpf_program__type(handle),
            attach_type=lib().bpf_program__expected_attach_type(handle),
            # A program that is not loaded answers with an errno.
            fd=max(lib().bpf_program__fd(handle), -1),
        )

    def maps(self) -> dict[str, BpfMap]:
        """The object's maps by name, with the data sections under ".rodata" and the like."""
        found: dict[str, BpfMap] = {}
        for handle in self._each("bpf_object__next_map"):
            full = lib().bpf_map__name(handle).decode()
            # Data sections carry a prefix cut from the object's name ("demo.rodata").
            name = "." + full.split(".", 1)[1] if "." in full else full
            found[name] = BpfMap(
                name=name,
                fd=max(lib().bpf_map__fd(handle), -1),
                type=lib().bpf_map__type(handle),
                key_size=lib().bpf_map__key_size(handle),
                value_size=lib().bpf_map__value_size(handle),
                max_entries=lib().bpf_map__max_entries(handle),
            )
        return found

    def _find(self, advance: str, accessor: str, name: str) -> int:
        for handle in self._each(advance):
            found = getattr(lib(), accessor)(handle).decode()
            # Data sections carry a prefix cut from the object's name.
            if found == name or (name.startswith(".") and found.endswith(name)):
                return handle
        raise KmeshError(f"{self.path}: no {name}")

    def set_autoload(self, program: str, *, load: bool) -> None:
        """Say before `load` whether a program is to be loaded."""
        handle = self._find("bpf_object__next_program", "bpf_program__name", program)
        check(lib().bpf_program__set_autoload(handle, load), f"{self.path}: {program}")

    def set_max_entries(self, name: str, count: int) -> None:
        """Resize a map before `load`."""
        handle = self._find("bpf_object__next_map", "bpf_map__name", name)
        check(lib().bpf_map__set_max_entries(handle, count), f"{self.path}: size of {name}")

    def set_initial_value(self, name: str, value: bytes) -> None:
        """Fill a data section (".rodata", ".data", ".bss") before `load`."""
        handle = self._find("bpf_object__next_map", "bpf_map__name", name)
        result = lib().bpf_map__set_initial_value(handle, value, len(value))
        check(result, f"{self.path}: value of {name}")

    def set_pin_path(self, name: str, path: Path | None) -> None:
        """Say before `load` where a map is pinned, or that it is not, whatever its source says."""
        handle = self._find("bpf_object__next_map", "bpf_map__name", name)
        where = os.fsencode(path) if path else None
        check(lib().bpf_map__set_pin_path(handle, where), f"{self.path}: pin path of {name}")

    def reuse_map(self, name: str, fd: int) -> None:
        """Use a map that exists already (pinned, or another object's) in place of a new one."""
        handle = self._find("bpf_object__next_map", "bpf_map__name", name)
        check(lib().bpf_map__reuse_fd(handle, fd), f"{self.path}: cannot reuse a map as {name}")
