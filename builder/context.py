# SPDX-License-Identifier: Apache-2.0
"""The context of a build: one archive whose bytes depend on what goes into the image and nothing else.

Its hash, with that of the base, is the key by which a build is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.cache import file_sha256
from builder.checkout import Checkout
from builder.objects import ObjectSet
from builder.recipes import Recipe
from builder.tarball import Writer
from builder.wheels import SITE

OBJECTS = "usr/lib/kmesh/bpf"
PROGRAMS = "usr/lib/kmesh/bin"
SOURCES = "usr/share/kmesh/bpf"
TREE = "usr/share/kmesh"
_COMMANDS = {
    "kmesh": "runtime.cli.main",
    "kmeshctl": "runtime.cli.ctl",
    "kmesh-build": "builder.cli",
}
_SCRIPT = """\
#!/usr/bin/python3 -I
import sys

from {module} import main

sys.exit(main())
"""
_METADATA = """\
Metadata-Version: 2.1
Name: kmesh
Version: {version}
License-Expression: Apache-2.0
Requires-Python: >=3.11
"""


@dataclass(frozen=True)
class Part:
    """A part of an image, a layer in the end: a stage's name and the archive that it is made of."""

    stage: str
    archive: Path


def code_archive(target: Path, checkout: Checkout, image: Recipe, compiled: ObjectSet) -> None:
    """Write the archive of Kmesh itself: its Python code, commands, what is compiled and, where wanted, sources."""
    root = checkout.root
    with target.open("wb") as stream, Writer(stream, epoch=0) as tar:
        tar.add_tree(f"{SITE}/runtime", root / "runtime")
        if image.builder:
            tar.add_tree(f"{SITE}/builder", root / "builder")
        tar.add_bytes(
            f"{SITE}/kmesh-{checkout.version}.dist-info/METADATA",
            _METADATA.format(version=checkout.version).encode(),
        )
        for command, module in _COMMANDS.items():
            if image.builder or not module.startswith("builder."):
                tar.add_bytes(
                    f"usr/bin/{command}", _SCRIPT.format(module=module).encode(), mode=0o755
                )
        tar.add_bytes(f"{OBJECTS}/manifest.json", compiled.manifest)
        for item in compiled.objects:
            tar.add_file(f"{OBJECTS}/{item.name}", item.path, mode=0o644)
        for program in compiled.programs:
            tar.add_file(f"{PROGRAMS}/{program.name}", program, mode=0o755)
        if image.sources:
            tar.add_tree(SOURCES, root / "bpf")
        if image.builder:
            tar.add_tree(f"{TREE}/images", root / "images")
            tar.add_tree(f"{TREE}/requirements", root / "requirements")
            tar.add_file(f"{TREE}/pyproject.toml", root / "pyproject.toml")
        tar.add_file("usr/share/doc/kmesh/LICENSE", root / "LICENSE")


def write_context(target: Path, *, dockerfile: str, finish: bytes, parts: Sequence[Part]) -> None:
    """Write the archive that the engine gets."""
    with target.open("wb") as stream, Writer(stream, epoch=0) as tar:
        tar.add_bytes("Dockerfile", dockerfile.encode())
        tar.add_bytes("finish.py", finish)
        for part in parts:
            tar.add_large_file(f"{part.stage}.tar", part.archive)


def describe_parts(parts: Sequence[Part]) -> Mapping[str, str]:
    """Hashes of the parts, for the key and the provenance."""
    return {part.stage: file_sha256(part.archive) for part in parts}
