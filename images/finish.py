# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001 - it is copied into builds alone
"""Finish a part of an image with the Python of that image: byte code, search path, large packages zipped.

Runs inside the build, once for each part, with the directory that the part is unpacked in. Byte code
carries a hash that is never checked, so that neither dates nor a read-only root matter.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import site
import sys
import zipfile
from pathlib import Path

HOME = "/usr/lib/kmesh/python"
# Pure Python with thousands of files: a fraction of the size in an archive, and no slower to import.
# Only byte code of what is generated: nobody reads those sources, and they are the larger half.
ARCHIVES = {  # name → (packages, sources too)
    "kubernetes": (("kubernetes",), False),
    "pygments": (("pygments",), True),
    "xds": (("cel", "envoy", "opencensus", "opentelemetry", "udpa", "validate", "xds"), False),
}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def finish(out: Path) -> None:
    """Compile what is below `out`, and let Python find it."""
    packages = Path(f"{out}{HOME}")
    for name, (members, sources) in ARCHIVES.items():
        if there := [member for member in members if (packages / member).is_dir()]:
            zip_packages(packages, name, there, sources=sources)
    compiled = compileall.compile_dir(
        packages,
        quiet=1,
        stripdir=str(out),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not compiled:
        raise SystemExit(f"finish: some of {packages} does not compile")
    write_path(out)


def zip_packages(packages: Path, name: str, members: list[str], *, sources: bool) -> None:
    """Replace pure Python packages by a zip archive of their byte code, and their sources if wanted."""
    with zipfile.ZipFile(
        packages / f"{name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9
    ) as archive:
        for member in members:
            add_package(archive, packages, member, name=name, sources=sources)
    for member in members:
        shutil.rmtree(packages / member)


def add_package(
    archive: zipfile.ZipFile, packages: Path, member: str, *, name: str, sources: bool
) -> None:
    """Add a package to the archive that will have a name."""
    for path in [packages / member, *sorted((packages / member).rglob("*"))]:
        inner = str(path.relative_to(packages))
        if path.is_dir():  # a directory without __init__.py is a package too, if it has an entry
            archive.writestr(zipfile.ZipInfo(f"{inner}/", _EPOCH), b"")
        if path.suffix == ".py":
            code = path.with_suffix(".pyc")
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            shown = f"{HOME}/{name}.zip/{inner}"
            py_compile.compile(
                str(path), str(code), dfile=shown, doraise=True, invalidation_mode=mode
            )
            add(archive, inner + "c", code)
        if path.is_file() and (sources or path.suffix != ".py"):
            add(archive, inner, path)


def add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Add a file without its date."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    archive.writestr(entry, path.read_bytes(), compresslevel=9)


def write_path(out: Path) -> None:
    """Let every Python of the image find the packages, isolated mode (`-I`) included."""
    place = Path(f"{out}{site.getsitepackages()[0]}")
    place.mkdir(parents=True, exist_ok=True)
    lines = [HOME, *(f"{HOME}/{name}.zip" for name in ARCHIVES)]
    (place / "kmesh.pth").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets in byte code follows it
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606
    finish(Path(sys.argv[1]))
