# SPDX-License-Identifier: Apache-2.0
"""What is built: the source tree, its version, its commit and the one date that the images carry."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runtime.errors import KmeshError
from runtime.process import CommandError, run

SOURCE = "https://github.com/kmesh-net/kmesh"
_BUILT_FROM = ("bpf", "builder", "images", "pyproject.toml", "requirements", "runtime")
_NO_COMMIT = "unknown"


@dataclass(frozen=True)
class Checkout:
    """A source tree.

    Attributes:
        root: its directory.
        version: the version in pyproject.toml.
        revision: the commit, with "-dirty" where what is built differs from it.
        epoch: the date of everything in the images, seconds since 1970: SOURCE_DATE_EPOCH,
            or the commit's.
    """

    root: Path
    version: str
    revision: str
    epoch: int

    @property
    def created(self) -> str:
        """The epoch as RFC 3339, as OCI annotations want it."""
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def find_root() -> Path:
    """The source tree that this package is in, or $KMESH_CHECKOUT.

    Raises:
        KmeshError: there is none: the package was installed without its sources.
    """
    given = os.environ.get("KMESH_CHECKOUT")
    root = Path(given).absolute() if given else Path(__file__).resolve().parent.parent
    if not (root / "images").is_dir() or not (root / "pyproject.toml").is_file():
        hint = "run kmesh-build from a checkout, or set KMESH_CHECKOUT to one"
        raise KmeshError(f"{root} is not a source tree of Kmesh", hint=hint)
    return root


def read_checkout(root: Path) -> Checkout:
    """Read version, commit and date of a source tree; without git the date comes from the environment."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    commit = _git(root, ["rev-parse", "HEAD"])
    revision = commit or _NO_COMMIT
    if commit and _git(root, ["status", "--porcelain", "--", *_BUILT_FROM]):
        revision += "-dirty"
    return Checkout(root, project["version"], revision, _epoch(root))


def _epoch(root: Path) -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH") or _git(root, ["log", "-1", "--format=%ct"])
    try:
        return int(given or 0)
    except ValueError as error:
        raise KmeshError(f"SOURCE_DATE_EPOCH is not a number of seconds: {given}") from error


def _git(root: Path, arguments: Sequence[str]) -> str:
    # A checkout of another user (sudo make docker) is what the user asked to build.
    try:
        return run(["git", "-c", "safe.directory=*", "-C", str(root), *arguments]).stdout.strip()
    except CommandError:
        return ""
