# SPDX-License-Identifier: Apache-2.0
"""Names of linux/bpf.h: helpers, program types, map types and attach types by number.

`uapi.json` is generated from a kernel's BTF (`python -m runtime.objects.uapi FILE`), and compared
with the installed linux/bpf.h in the tests. The numbers are a promise of the upstream kernel's;
vendors break it (FACTS: helper 165 on openEuler), which is what the prober compares names for.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

_ENUMS = {
    "helpers": ("bpf_func_id", "BPF_FUNC_"),
    "program_types": ("bpf_prog_type", "BPF_PROG_TYPE_"),
    "map_types": ("bpf_map_type", "BPF_MAP_TYPE_"),
    "attach_types": ("bpf_attach_type", "BPF_"),
}


@cache
def _names() -> dict[str, dict[int, str]]:
    text = Path(__file__).with_name("uapi.json").read_text()
    return {kind: {int(k): v for k, v in table.items()} for kind, table in json.loads(text).items()}


def helper(number: int) -> str:
    """A helper's name ("map_lookup_elem"), or "helper#N" for one newer than the table."""
    return _names()["helpers"].get(number, f"helper#{number}")


def program_type(number: int) -> str:
    return _names()["program_types"].get(number, f"#{number}")


def map_type(number: int) -> str:
    return _names()["map_types"].get(number, f"#{number}")


def attach_type(number: int) -> str:
    return _names()["attach_types"].get(number, f"#{number}")


def names(kind: str) -> frozenset[str]:
    """All names of "helpers", "program_types", "map_types" or "attach_types"."""
    return frozenset(_names()[kind].values())


def enum_of(kind: str) -> tuple[str, str]:
    """The BTF enum and the prefix of its members for "helpers", "program_types" and so on."""
    return _ENUMS[kind]


def generate(btf: Path | None) -> str:
    """The content of uapi.json, from a BTF file or the running kernel."""
    from runtime.bpf.btf import Btf, Kind

    tables: dict[str, dict[str, str]] = {}
    with Btf(btf) as types:
        for kind, (enum, prefix) in _ENUMS.items():
            number = types.find(enum, Kind.ENUM)
            members = types.enum(number) if number else {}
            # Aliases (CGROUP_STORAGE_DEPRECATED) come first: the name in use is the last one.
            tables[kind] = {
                str(value): name.removeprefix(prefix)
                for name, value in sorted(members.items(), key=lambda item: item[1])
                if name.startswith(prefix) and not name.endswith("_DEPRECATED")
            }
    return json.dumps(tables, indent=0) + "\n"


if __name__ == "__main__":
    print(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else None), end="")
