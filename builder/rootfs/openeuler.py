# SPDX-License-Identifier: Apache-2.0
"""The openEuler root: from a package repository through dnf, or from a root archive that the user has."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from builder.cache import content_key, entry, file_sha256, require_space
from builder.rootfs import dnf, osrelease, rpm
from builder.rootfs.dnf import Repository
from builder.rootfs.split import STATUS
from builder.tarball import clamp, read_member
from runtime.errors import KmeshError
from runtime.process import CommandError

ID = "openEuler"
PACKAGES = ("openEuler-release", "bash", "coreutils", "libbpf", "libstdc++", "python3")
_EPOCH = 1717027200  # openEuler 24.03 LTS
_SPACE = 1_500_000_000
_VERSION = "3"
_RELEASE = "24.03"
_DROPPED = ("dev/", "proc/", "sys/", "run/", "tmp/", "var/cache/", "var/log/", "var/lib/dnf/")
_PYTHON = ("usr/bin/python3",)
_LISTS = (rpm.MANIFEST, "usr/bin/rpm", "bin/rpm", STATUS)  # what tells the packages of a root


@dataclass(frozen=True)
class OpenEulerRoot:
    """A root archive.

    Attributes:
        layer: the archive, one layer.
        digest: its SHA-256.
        release: what it says it is.
        key: its content key.
        command: how it was made.
        inputs: what it was made of.
        note: what the user should know, or "".
    """

    layer: Path
    digest: str
    release: osrelease.OsRelease
    key: str
    command: tuple[str, ...]
    inputs: tuple[str, ...]
    note: str = ""


def from_archive(cache: Path, archive: Path) -> OpenEulerRoot:
    """Take a root archive (tar, tar.gz or tar.xz) as it is.

    Raises:
        KmeshError: it is no archive, not openEuler, or has no Python.
    """
    if not archive.is_file():
        raise KmeshError(f"no root archive {archive}", hint="--base-archive takes a tar of a root")
    digest = file_sha256(archive)
    key = content_key(_VERSION, digest)
    try:
        place = entry(cache, "roots", key, lambda to: _take(archive, to / "root.tar"))
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise KmeshError(f"{archive} is no tar archive ({error})") from error
    release = _check(place / "root.tar", str(archive))
    root = place / "root.tar"
    command, inputs = ("cp", archive.name), (f"{archive.name} sha256:{digest}",)
    return OpenEulerRoot(root, file_sha256(root), release, key, command, inputs)


def from_repository(
    cache: Path, repository: Repository, *, say: Callable[[str], None]
) -> OpenEulerRoot:
    """Install a root from a package repository.

    Args:
        cache: the cache's directory.
        repository: where the packages are, and the keys that they must be signed with.
        say: told what takes long.

    Raises:
        KmeshError: the repository does not answer, lacks a package, or has one that is not signed.
    """
    command = ("dnf", *dnf.command(Path("ROOT"), PACKAGES, release=_RELEASE))
    index = dnf.index(cache, repository)
    key = content_key(_VERSION, str(_EPOCH), *command, repository.identity(), *index)
    place = entry(cache, "roots", key, lambda to: _install(to, repository, say))
    release = _check(place / "root.tar", repository.uri)
    inputs = (*index, *(place / "packages").read_text().splitlines())
    note = "" if repository.key else f"packages of {repository.uri} were checked against no key"
    root = place / "root.tar"
    return OpenEulerRoot(root, file_sha256(root), release, key, command, inputs, note)


def _check(root: Path, what: str) -> osrelease.OsRelease:
    release = osrelease.check(read_member(root, osrelease.PATHS), wanted=ID, what=what)
    if read_member(root, _PYTHON) is None:
        hint = f"the root needs the packages {', '.join(PACKAGES)}"
        raise KmeshError(f"{what} has no usr/bin/python3", hint=hint)
    if read_member(root, _LISTS) is None:
        hint = "no bill of materials can be written without: keep rpm, or add " + rpm.MANIFEST
        raise KmeshError(f"{what} does not tell its packages", hint=hint)
    return release


def _take(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar, target.open("wb") as stream:
        _rewrite(tar, stream)


def _rewrite(tar: tarfile.TarFile, stream: IO[bytes]) -> None:
    """Write the members sorted and dated, without what belongs to a running system."""
    members = {member.name.removeprefix("./").rstrip("/"): member for member in tar}
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as out:
        for name in sorted(members, key=lambda name: (members[name].islnk(), name)):
            member = members[name]
            if name in ("", ".") or name.startswith(_DROPPED) or member.ischr() or member.isblk():
                continue
            made = clamp(member, epoch=_EPOCH)
            made.name = name
            made.linkname = (
                member.linkname.removeprefix("./") if member.islnk() else member.linkname
            )
            out.addfile(made, tar.extractfile(member) if member.isreg() else None)


def _install(place: Path, repository: Repository, say: Callable[[str], None]) -> None:
    require_space(place, _SPACE)
    say(f"installing an openEuler root from {repository.uri} with dnf")
    try:
        tree = dnf.install(place, repository, PACKAGES, release=_RELEASE, epoch=_EPOCH)
    except CommandError as error:
        hint = f"the repository must have {', '.join(PACKAGES)} and what they need"
        hint += ", signed with the key given" if repository.key else ""
        reason = f"cannot install openEuler from {repository.uri}: {error}"
        raise KmeshError(reason, hint=hint) from error
    whole = place / "whole.tar"
    with tarfile.open(whole, "w") as tar:
        tar.add(tree, arcname=".")
    _take(whole, place / "root.tar")
    whole.unlink()
    shutil.rmtree(tree)
    shutil.rmtree(place / "dnf")
