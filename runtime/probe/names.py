# SPDX-License-Identifier: Apache-2.0
"""The second evidence: names in a kernel's BTF.

Helpers are looked up by name and never by number: vendors shift the numbers (helper 165 of
openEuler 22.03 is another helper than upstream's), and a program that calls a number would then
call something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from runtime.bpf.btf import Btf, Kind
from runtime.bpf.lib import BpfError
from runtime.errors import KmeshError
from runtime.objects import uapi

VMLINUX = "vmlinux"


def module_files(btf: Path) -> list[Path]:
    """The BTF files of the modules that are loaded, beside that of the running kernel."""
    return sorted(path for path in btf.parent.iterdir() if path.name != VMLINUX)


class KernelTypes:
    """A kernel's BTF, opened when first asked; without one it knows nothing, and says why.

    Args:
        path: a BTF file, or None when there is none.
        reason: why there is none.
        modules: BTF files of the kernel's modules, by whose names they are called.
    """

    def __init__(
        self, path: Path | None, *, reason: str = "", modules: Iterable[Path] = ()
    ) -> None:
        self._path = path
        self.reason = reason
        self._modules = tuple(modules)

    @cached_property
    def _btf(self) -> Btf | None:
        if self._path is None:
            return None
        try:
            return Btf(self._path)
        except BpfError as error:
            self.reason = str(error)
            return None

    @property
    def available(self) -> bool:
        return self._btf is not None

    def _enum(self, kind: str) -> dict[str, int]:
        name, prefix = uapi.enum_of(kind)
        number = self._btf.find(name, Kind.ENUM) if self._btf else None
        if self._btf is None or number is None:
            return {}
        members = self._btf.enum(number).items()
        return {key.removeprefix(prefix): value for key, value in members if key.startswith(prefix)}

    @cached_property
    def helpers(self) -> dict[str, int]:
        """Helper numbers by name; {} when they are not known."""
        return self._enum("helpers")

    @cached_property
    def helper_names(self) -> dict[int, str]:
        return {number: name for name, number in self.helpers.items()}

    @cached_property
    def map_types(self) -> dict[str, int]:
        return self._enum("map_types")

    @cached_property
    def program_types(self) -> dict[str, int]:
        return self._enum("program_types")

    @cached_property
    def attach_types(self) -> dict[str, int]:
        return self._enum("attach_types")

    def has_function(self, name: str) -> bool:
        return bool(self.function_home(name))

    def function_home(self, name: str) -> str:
        """Where a function is: "vmlinux", the name of a module, "" for nowhere."""
        if self._btf is None:
            return ""
        if self._btf.find(name, Kind.FUNC) is not None:
            return VMLINUX
        return next((path.stem for path in self._modules if self._in_module(path, name)), "")

    def _in_module(self, path: Path, name: str) -> bool:
        assert self._btf is not None
        try:
            if (
                f"\0{name}\0".encode() not in path.read_bytes()
            ):  # hundreds of modules, and hardly one
                return False
            with Btf(path, base=self._btf) as module:
                return module.find(name, Kind.FUNC) is not None
        except (OSError, BpfError):  # unloaded just now, or of another kernel
            return False

    def has_field(self, path: str) -> bool:
        """Whether "struct.field.field" exists; anonymous members are looked through.

        Raises:
            KmeshError: the path has no field in it.
        """
        root, *fields = path.split(".")
        if not fields:
            raise KmeshError(f"{path} names no field")
        if self._btf is None:
            return False
        found = self._btf.find(root, Kind.STRUCT) or self._btf.find(root, Kind.UNION)
        for field in fields:
            found = self._member(found, field) if found else None
        return found is not None

    def _member(self, number: int, wanted: str) -> int | None:
        """The type of a member, also of one inside an anonymous struct or union."""
        assert self._btf is not None
        kind = self._btf.resolve(number)
        while kind > 0 and self._btf.kind(kind) == Kind.ARRAY:
            kind = self._btf.resolve(self._btf.array(kind)[0])
        if kind <= 0 or self._btf.kind(kind) not in (Kind.STRUCT, Kind.UNION):
            return None
        for name, member, _offset in self._btf.members(kind):
            if name == wanted:
                return member
            inner = None if name else self._member(member, wanted)
            if inner is not None:
                return inner
        return None
