# SPDX-License-Identifier: Apache-2.0
"""dnf, asked without touching the host's state: what a repository has, and a root made of its packages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.cache import content_key, file_sha256
from builder.longrun import run_logged
from builder.rootfs import rpm
from runtime.errors import KmeshError
from runtime.process import CommandError


@dataclass(frozen=True)
class Repository:
    """A package repository.

    Attributes:
        uri: its base URI, file: or http(s):.
        key: the file with the public keys that its packages must be signed with, or None to check none.
    """

    uri: str
    key: Path | None = None

    def identity(self) -> str:
        """What a content key takes of it: where it is, and the very keys."""
        return content_key(self.uri, self.key.read_bytes() if self.key else b"")

    def file(self) -> str:
        """As dnf.conf(5) has it."""
        lines = ["[base]", "name=base", f"baseurl={self.uri}", "timeout=10", "metadata_expire=0"]
        lines += ["skip_if_unavailable=0", f"gpgcheck={int(self.key is not None)}"]
        lines += [f"gpgkey=file://{self.key.absolute()}"] if self.key else []
        return "\n".join(lines) + "\n"


def index(cache: Path, repository: Repository) -> tuple[str, ...]:
    """What the repository has, as far as a root depends on it: the hash of its index.

    Raises:
        KmeshError: it does not answer.
    """
    state = cache / "dnf" / repository.identity()[:16]
    try:
        _run(state, repository, ["makecache"])
    except CommandError as error:
        hint = "give the base URI of a repository (where repodata/ is), or --base-archive; it takes dnf"
        raise KmeshError(
            f"no package repository at {repository.uri}: {error}", hint=hint
        ) from error
    indexes = sorted(state.rglob("repomd.xml"))
    return tuple(f"repomd.xml sha256:{file_sha256(path)}" for path in indexes)


def install(
    place: Path, repository: Repository, packages: Sequence[str], *, release: str, epoch: int
) -> Path:
    """Install packages and what they need into an empty root; returns the root.

    In place of rpm's database it has the list of its packages (`builder.rootfs.rpm`).

    Args:
        place: a directory, for the root and what dnf writes beside it.
        repository: where the packages are.
        packages: their names.
        release: the value of $releasever.
        epoch: when they are said to have been installed, seconds since 1970.

    Raises:
        CommandError: a package is not there, or not signed as it must be.
    """
    tree = place / "tree"
    tree.mkdir()
    _run(place / "dnf", repository, command(tree, packages, release=release), epoch=epoch)
    found = rpm.installed(tree)
    shutil.rmtree(tree / rpm.DATABASE)
    (tree / rpm.MANIFEST).parent.mkdir(parents=True, exist_ok=True)
    (tree / rpm.MANIFEST).write_text(rpm.manifest(found, epoch=epoch))
    (place / "packages").write_text("".join(f"{package.input}\n" for package in found))
    return tree


def command(tree: Path, packages: Sequence[str], *, release: str) -> list[str]:
    """The arguments that install a root."""
    options = ["--setopt=install_weak_deps=False", "--setopt=tsflags=nodocs"]
    return [f"--installroot={tree}", f"--releasever={release}", *options, "install", *packages]


def _run(state: Path, repository: Repository, arguments: Sequence[str], *, epoch: int = 0) -> None:
    state.mkdir(parents=True, exist_ok=True)
    (state / "base.repo").write_text(repository.file())
    (state / ".rpmmacros").write_text(rpm.MACROS)
    settings = {"reposdir": state, "cachedir": state / "cache", "logdir": state}
    options = [f"--setopt={name}={value}" for name, value in settings.items()]
    # useradd(8) in packages' scripts dates passwords by SOURCE_DATE_EPOCH.
    environment = {**os.environ, "HOME": str(state), "SOURCE_DATE_EPOCH": str(epoch)}
    run_logged(["dnf", "--assumeyes", *options, *arguments], log=state / "dnf.log", env=environment)
