# SPDX-License-Identifier: Apache-2.0
"""Run inside an image: carry out every import that some packages make, those inside functions too.

    python3 -I -c "$(cat every_import.py)" runtime -runtime.not_this_module

What was left out of the image to keep it small must be nothing that anything imports; a module that only
one command needs would otherwise be missed on the day when that command is run.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

_NOT_HERE = ("bcc",)  # in images with a toolchain, which try it by themselves


def sources(package: str) -> Iterator[tuple[str, Path]]:
    """The modules of a package: name and file."""
    spec = importlib.util.find_spec(package)
    assert spec
    assert spec.origin
    root = Path(spec.origin).parent
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Everything that a file imports: module, and the name taken from it or ""."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def carry_out(module: str, name: str) -> str:
    """Import a module and take a name from it; what is wrong with that, or ""."""
    try:
        made = importlib.import_module(module)
        if name not in ("", "*") and not hasattr(made, name):
            importlib.import_module(f"{module}.{name}")
    except Exception as error:  # noqa: BLE001 - a module may raise anything at import
        return f"{type(error).__name__}: {error}"
    return ""


def main(arguments: list[str]) -> None:
    """Import all modules of some packages, less those after a dash, and all that they import."""
    wanted: dict[tuple[str, str], str] = {}
    for package in (name for name in arguments if not name.startswith("-")):
        for module, path in sources(package):
            if f"-{module}" in arguments:
                continue
            if not module.endswith("__main__"):
                wanted.setdefault((module, ""), package)
            for item in imports(path):
                wanted.setdefault(item, module)
    failed = [
        f"{module} ({name or 'itself'}, wanted by {by}): {wrong}"
        for (module, name), by in wanted.items()
        if not module.startswith(_NOT_HERE) and (wrong := carry_out(module, name))
    ]
    print(f"{len(wanted)} imports")
    sys.exit("; ".join(failed) or None)


if __name__ == "__main__":
    main(sys.argv[1:])
