# SPDX-License-Identifier: Apache-2.0
"""The locked Python packages, fetched by hash and laid out for an image's Python: no network in any build."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from builder.cache import content_key, entry, require_space
from builder.lock import Pin
from builder.longrun import run_logged
from builder.prune import FILES, prune
from builder.tarball import Writer
from runtime.errors import KmeshError
from runtime.process import CommandError

PYTHON = "3.11"  # of Debian 12 and of openEuler 24.03
SITE = "usr/lib/kmesh/python"
_GLIBC_MINOR = 36  # Debian 12's; openEuler 24.03 has 2.38
_VERSION = "2"
_SPACE = 500_000_000


@dataclass(frozen=True)
class PythonPackage:
    """One distribution in an image, as its metadata has it."""

    name: str
    version: str
    license: str


@dataclass(frozen=True)
class Site:
    """Python packages ready for an image.

    Attributes:
        archive: a tar that unpacks at an image's root.
        packages: what is in it, sorted by name.
        key: its content key.
    """

    archive: Path
    packages: tuple[PythonPackage, ...]
    key: str


def site(cache: Path, pins: Sequence[Pin], *, say: Callable[[str], None]) -> Site:
    """Fetch pinned packages and lay them out.

    Args:
        cache: the cache's directory.
        pins: the packages, each with its hashes.
        say: told when something is fetched.

    Raises:
        KmeshError: the package index does not answer, or a hash is not the locked one.
    """
    text = "".join(pin.text for pin in pins)
    key = content_key(_VERSION, PYTHON, platform.machine(), SITE, *FILES, text)
    place = entry(cache, "wheels", key, lambda to: _make(to, text, len(pins), say))
    listed = json.loads((place / "packages.json").read_text())
    return Site(place / "site.tar", tuple(PythonPackage(**package) for package in listed), key)


def _make(place: Path, lock: str, count: int, say: Callable[[str], None]) -> None:
    require_space(place, _SPACE)
    say(f"fetching {count} locked Python packages")
    requirements, wheels, tree = place / "requirements.lock", place / "wheels", place / "site"
    requirements.write_text(lock)
    _pip(place, ["download", "--require-hashes", "-r", str(requirements), "-d", str(wheels)])
    files = sorted(str(path) for path in wheels.iterdir())
    _pip(place, ["install", "--no-index", "--no-compile", "--target", str(tree), *files])
    prune(tree)
    _describe(place, tree)
    with (place / "site.tar").open("wb") as stream, Writer(stream, epoch=0) as tar:
        tar.add_tree(SITE, tree)
    shutil.rmtree(tree)
    shutil.rmtree(wheels)


def _pip(place: Path, arguments: Sequence[str]) -> None:
    target = [
        "--no-deps",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={PYTHON}",
    ]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    platforms = [f"--platform={name}" for name in platforms_of(platform.machine())]
    try:
        run_logged([*command, *arguments, *target, *platforms], log=place / "pip.log")
    except CommandError as error:
        hint = "the package index must be reachable the first time; hashes are in requirements/"
        raise KmeshError(f"cannot get the locked Python packages: {error}", hint=hint) from error


def platforms_of(machine: str) -> list[str]:
    """Platform tags (PEP 600) that run on every base, best first."""
    minors = range(_GLIBC_MINOR, 4, -1)
    old = ["manylinux2014", "manylinux2010", "manylinux1"]
    return [
        *(f"manylinux_2_{minor}_{machine}" for minor in minors),
        *(f"{n}_{machine}" for n in old),
        "any",
    ]


def _describe(place: Path, tree: Path) -> None:
    packages = sorted(_metadata(path) for path in tree.glob("*.dist-info/METADATA"))
    listed = [
        dict(zip(("name", "version", "license"), package, strict=True)) for package in packages
    ]
    (place / "packages.json").write_text(json.dumps(listed, indent=1))


def _metadata(path: Path) -> tuple[str, str, str]:
    fields = HeaderParser().parsestr(path.read_text())
    licence = fields.get("License-Expression") or fields.get("License") or ""
    return fields["Name"], fields["Version"], licence.splitlines()[0] if licence else ""
