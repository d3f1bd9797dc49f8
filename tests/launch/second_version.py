# SPDX-License-Identifier: Apache-2.0
"""Another version of Kmesh, built from this checkout: what its maps hold is laid out otherwise.

Its sources are copied, structs get fields, the objects are compiled anew, and the layout modules are
generated from them, as whoever changes a map would do it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# A field in front of the others: every offset behind it changes, and the size. Named pad, as what
# writes the struct needs not know of it.
TABLES = {
    "types.h": {"struct kmesh_endpoint {": "__u64 pad_2;", "struct kmesh_frontend {": "__u64 pad_2;"},
    "policy.h": {"struct kmesh_guard {": "__u64 pad_2;"},
    "telemetry.h": {"struct kmesh_tcp_event {": "__u64 pad_2;"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Version:
    """A checkout of another version: its own runtime and objects."""

    tree: Path

    @property
    def objects(self) -> Path:
        return self.tree / "build" / "bpf"

    @property
    def environment(self) -> dict[str, str]:
        """What a process of it is started with, beside `prefix`."""
        return {"PYTHONPATH": str(self.tree), "KMESH_OBJECTS": str(self.objects)}

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("env", f"--chdir={self.tree}")

    def digest(self, module: str = "layout") -> str:
        """The digest that its generated module has."""
        code = f"from runtime.tables.{module} import DIGEST; print(DIGEST)"
        return self._python("-c", code).strip()

    def _python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.tree, env=self.environment | {"PATH": _path()},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout


def build(
    checkout: Path, tree: Path, *, fields: Mapping[str, Mapping[str, str]] = TABLES
) -> Version:
    """Make a version whose structs have fields more.

    Args:
        checkout: the version to start from.
        tree: where it goes; made here.
        fields: by header and the line that opens a struct, its new first field.
    """
    for part in ("runtime", "builder", "bpf"):
        shutil.copytree(checkout / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(checkout / "pyproject.toml", tree)
    for header, changes in fields.items():
        path = tree / "bpf/include/kmesh" / header
        text = path.read_text()
        for opening, field in changes.items():
            assert text.count(opening) == 1
            text = text.replace(opening, f"{opening}\n\t{field}")
        path.write_text(text)
    made = Version(tree)
    made._python("-m", "runtime.compile", "bpf", str(made.objects))
    made._python("-m", "builder.layout")
    made._python("-m", "runtime.compile.native", str(tree / "build" / "bin"))
    return made


def _path() -> str:
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
