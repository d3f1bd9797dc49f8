# SPDX-License-Identifier: Apache-2.0
"""What of the locked Python packages stays out of the images, and why that is sound.

Two rules. A package that is only there for a part of another that is left out is not laid out at all; the
lock file tells what needs what. And of what is laid out, files go that no import can reach. That all of
Kmesh's own imports work is shown inside each image (`builder.smoke`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from builder.lock import Pin, closure

PROJECT = "kmesh"  # in a lock file, what asks for direct dependencies

# Requirements of a part that is left out below: package → those of its requirements.
UNUSED: Mapping[str, frozenset[str]] = {
    "kubernetes": frozenset({"aiohttp", "aiohttp-retry"}),  # of kubernetes.aio
}
# Files left out: pattern (fnmatch, below the packages' directory) → why.
FILES: Mapping[str, str] = {
    "kubernetes/aio/*": "a second client with models of its own, on aiohttp; Kmesh uses the first",
    "kubernetes/*_test.py": "tests",
    "*/tests/*": "tests",
    "test/*": "tests of xds-protos, which hide the standard library's",
    "*.pyi": "for type checkers",
    "*.pyx": "sources of compiled modules",
    "*.pxd": "sources of compiled modules",
    "*.dist-info/RECORD": "for uninstalling; the image's layers have digests",
}


def needed(pins: Mapping[str, Pin]) -> list[Pin]:
    """The packages of a lock file that are reachable from the project without what is unused; sorted."""
    direct = {name for name, pin in pins.items() if PROJECT in pin.via}
    used = {name: pin.without(_askers(name)) for name, pin in pins.items()}
    return closure(used, direct)


def _askers(name: str) -> frozenset[str]:
    return frozenset(asker for asker, unused in UNUSED.items() if name in unused)


def prune(tree: Path) -> None:
    """Remove what stays out from a directory of packages, and directories that are empty then."""
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif is_left_out(str(path.relative_to(tree))):
            path.unlink()
    shutil.rmtree(tree / "bin", ignore_errors=True)  # scripts of libraries, for another Python


def is_left_out(name: str) -> bool:
    """Whether a file, named below the packages' directory, stays out."""
    return any(fnmatch(name, pattern) for pattern in FILES)
