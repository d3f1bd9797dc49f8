# SPDX-License-Identifier: Apache-2.0
"""Which Kmesh this is: its version, the commit it was built from, and the objects it would load."""

from __future__ import annotations

import hashlib
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runtime.errors import KmeshError
from runtime.process import run

_CHECKOUT = Path(__file__).resolve().parents[1]


def package_version() -> str:
    try:
        return version("kmesh")
    except PackageNotFoundError:  # the sources alone, on PYTHONPATH
        return "unknown"


def commit() -> str:
    """The commit: $KMESH_COMMIT (the images set it), else the checkout's, else "unknown"."""
    said = os.environ.get("KMESH_COMMIT")
    if said:
        return said
    if not (_CHECKOUT / ".git").exists():
        return "unknown"
    try:
        return run(["git", "-C", str(_CHECKOUT), "rev-parse", "HEAD"], timeout=5).stdout.strip()
    except KmeshError:
        return "unknown"


def objects_digest(objects: Path) -> str | None:
    """SHA-256 of the manifest, which holds the hash of every object; None without one."""
    try:
        return hashlib.sha256((objects / "manifest.json").read_bytes()).hexdigest()
    except OSError:
        return None


def describe(objects: Path | None) -> dict[str, str | None]:
    """Everything that tells one build from another, for `kmesh version` and /version.

    Args:
        objects: the directory of compiled objects, or None where there is none.
    """
    return {
        "version": package_version(),
        "commit": commit(),
        "libbpf": libbpf_version(),
        "objects": str(objects) if objects else None,
        "objects_sha256": objects_digest(objects) if objects else None,
    }


def libbpf_version() -> str | None:
    from runtime.bpf.lib import lib

    try:
        return str(lib().libbpf_version_string().decode()).removeprefix("v")
    except KmeshError:
        return None
