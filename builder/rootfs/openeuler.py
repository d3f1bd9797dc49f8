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
from builder.longrun import run_logged
from builder.rootfs import osrelease
from builder.tarball import clamp, read_member
from runtime.errors import KmeshError
from runtime.process import CommandError

ID = "openEuler"
PACKAGES = ("openEuler-release", "bash", "coreutils", "libbpf", "libstdc++", "python3")
_EPOCH = 1717027200  # openEuler 24.03 LTS
_SPACE = 1_500_000_000
_VERSION = "2"
_DROPPED = ("dev/", "proc/", "sys/", "run/", "tmp/", "var/cache/", "var/log/", "var/lib/dnf/")
_PYTHON = ("usr/bin/python3",)


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
    """

    layer: Path
    digest: str
    release: osrelease.OsRelease
    key: str
    command: tuple[str, ...]
    inputs: tuple[str, ...]


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


def from_repository(cache: Path, uri: str, *, say: Callable[[str], None]) -> OpenEulerRoot:
    """Install a root from a package repository.

    Args:
        cache: the cache's directory.
        uri: the repository's base URI, file: or http(s):.
        say: told what takes long.

    Raises:
        KmeshError: the repository does not answer or lacks a package.
    """
    command = _dnf(uri, Path("ROOT"))
    versions = _resolve(cache, uri)
    key = content_key(_VERSION, *command, *versions)
    place = entry(cache, "roots", key, lambda to: _install(to, uri, say))
    release = _check(place / "root.tar", uri)
    return OpenEulerRoot(
        place / "root.tar", file_sha256(place / "root.tar"), release, key, tuple(command), versions
    )


def _check(root: Path, what: str) -> osrelease.OsRelease:
    release = osrelease.check(read_member(root, osrelease.PATHS), wanted=ID, what=what)
    if read_member(root, _PYTHON) is None:
        hint = f"the root needs the packages {', '.join(PACKAGES)}"
        raise KmeshError(f"{what} has no usr/bin/python3", hint=hint)
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


def _dnf(uri: str, root: Path) -> list[str]:
    return [
        "dnf",
        "--assumeyes",
        f"--installroot={root}",
        "--releasever=24.03",
        f"--repofrompath=base,{uri}",
        "--repo=base",
        "--nogpgcheck",  # the user names the repository, and its URI stands in the provenance
        "--setopt=install_weak_deps=False",
        "--setopt=tsflags=nodocs",
        "--setopt=reposdir=/dev/null",
        "install",
        *PACKAGES,
    ]


def _resolve(cache: Path, uri: str) -> tuple[str, ...]:
    """What the repository has, as far as a root depends on it: the hash of its index."""
    state = cache / "dnf" / content_key(uri)[:16]
    state.mkdir(parents=True, exist_ok=True)
    command = ["dnf", f"--repofrompath=base,{uri}", "--repo=base", "--setopt=reposdir=/dev/null"]
    command += [f"--setopt=cachedir={state}", "--setopt=metadata_expire=0", "--setopt=timeout=10"]
    command += ["--setopt=skip_if_unavailable=False"]
    try:
        run_logged([*command, "makecache"], log=state / "dnf.log")
    except CommandError as error:
        hint = "give the base URI of a repository (where repodata/ is), or --base-archive; it takes dnf"
        raise KmeshError(f"no package repository at {uri}: {error}", hint=hint) from error
    indexes = sorted(state.rglob("repomd.xml"))
    return tuple(f"repomd.xml sha256:{file_sha256(path)}" for path in indexes)


def _install(place: Path, uri: str, say: Callable[[str], None]) -> None:
    require_space(place, _SPACE)
    say(f"installing an openEuler root from {uri} with dnf")
    tree = place / "tree"
    tree.mkdir()
    try:
        run_logged(_dnf(uri, tree), log=place / "dnf.log")
    except CommandError as error:
        hint = f"the repository must have {', '.join(PACKAGES)} and what they need"
        raise KmeshError(f"cannot install openEuler from {uri}: {error}", hint=hint) from error
    whole = place / "whole.tar"
    with tarfile.open(whole, "w") as tar:
        tar.add(tree, arcname=".")
    _take(whole, place / "root.tar")
    whole.unlink()
    shutil.rmtree(tree)
