# SPDX-License-Identifier: Apache-2.0
"""What is known about an object: the plain facts that inspection yields."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import KmeshError

_GPL_COMPATIBLE = frozenset(
    {
        "GPL",
        "GPL v2",
        "GPL and additional rights",
        "Dual BSD/GPL",
        "Dual MIT/GPL",
        "Dual MPL/GPL",
    }
)


class ObjectError(KmeshError):
    """A file that is not an object Kmesh can use; the message has its name and the reason."""

    def __init__(self, path: Path, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint=hint)
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True, order=True)
class HelperUse:
    """A helper that a program calls: the number in its instructions, the name that the UAPI gives it."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramInfo:
    """One program, with the subprograms that it calls counted in.

    `type` and `attach_type` are UAPI names without their prefix ("SOCK_OPS", "CGROUP_SOCK_OPS"),
    `attach_type` is "" for a type that has none.
    """

    name: str
    section: str
    type: str
    attach_type: str
    instructions: int
    helpers: tuple[HelperUse, ...] = ()
    kfuncs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MapInfo:
    """One map; `type` is its UAPI name without the prefix ("SOCKHASH"), sizes are bytes."""

    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    pinning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object file.

    Attributes:
        arch: "bpfel".
        core_fields: "struct.field" of the kernel that its CO-RE relocations cannot do without.
        optional_helpers: names of helpers that it calls only where the loader says that they are
            there (section .kmesh.optional, names end with NUL; see bpf/include/kmesh/drift.h).
        optional_programs: names of programs that are left out where a helper of theirs is not for
            programs of their type (section .kmesh.optional.programs; bpf/include/kmesh/optional.h).
    """

    path: Path
    size: int
    sha256: str
    arch: str
    license: str
    has_btf: bool
    has_btf_ext: bool
    programs: tuple[ProgramInfo, ...]
    maps: tuple[MapInfo, ...]
    kfuncs: tuple[str, ...] = ()
    core_fields: tuple[str, ...] = ()
    optional_helpers: tuple[str, ...] = ()
    optional_programs: tuple[str, ...] = ()

    @property
    def helpers(self) -> tuple[HelperUse, ...]:
        """Every helper that any program calls, by number."""
        return tuple(sorted({use for program in self.programs for use in program.helpers}))

    @property
    def needed_helpers(self) -> tuple[HelperUse, ...]:
        """The helpers without which it does not load."""
        return tuple(use for use in self.helpers if use.name not in self.optional_helpers)

    @property
    def gpl_compatible(self) -> bool:
        """Whether the kernel lets it call the helpers that are for GPL programs (license.h)."""
        return self.license in _GPL_COMPATIBLE

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON data."""
        return {**asdict(self), "path": str(self.path)}


def info_from_json(data: dict[str, Any], *, path: Path) -> ObjectInfo:
    """The facts that `ObjectInfo.to_json` wrote, of the same object wherever it lies now.

    Raises:
        KeyError, TypeError: it is no such thing.
    """
    programs = tuple(
        ProgramInfo(
            **{
                **item,
                "helpers": tuple(HelperUse(**use) for use in item["helpers"]),
                "kfuncs": tuple(item["kfuncs"]),
            }
        )
        for item in data["programs"]
    )
    lists = ("kfuncs", "core_fields", "optional_helpers", "optional_programs")
    return ObjectInfo(
        **{
            **data,
            "path": path,
            "programs": programs,
            "maps": tuple(MapInfo(**item) for item in data["maps"]),
            **{name: tuple(data[name]) for name in lists},
        }
    )
