# SPDX-License-Identifier: Apache-2.0
"""Tar archives whose bytes depend on names, modes and contents only: no clock, no user, no order of a disk."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Self

_XATTR = "SCHILY.xattr."
_SKIPPED_DIRECTORIES = frozenset({"__pycache__"})


def clean(member: tarfile.TarInfo, *, epoch: int) -> tarfile.TarInfo:
    """Take from a member what differs between two runs; file capabilities and other xattrs stay."""
    made = tarfile.TarInfo(member.name)
    made.type, made.linkname, made.mode = member.type, member.linkname, member.mode
    made.size = member.size if member.isreg() else 0
    made.uid, made.gid = member.uid, member.gid
    made.devmajor, made.devminor = member.devmajor, member.devminor
    made.mtime = epoch
    kept = {key: text for key, text in member.pax_headers.items() if key.startswith(_XATTR)}
    made.pax_headers = dict(sorted(kept.items()))
    return made


def clamp(member: tarfile.TarInfo, *, epoch: int) -> tarfile.TarInfo:
    """`clean`, but a date before the epoch stays: it is the file's own."""
    return clean(member, epoch=min(int(member.mtime), epoch))


class Writer:
    """Writes a deterministic tar archive to a stream."""

    def __init__(self, stream: IO[bytes], *, epoch: int) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._epoch = epoch
        self._directories: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def add_bytes(self, name: str, data: bytes, *, mode: int = 0o644) -> None:
        """Add a file and the directories above it."""
        self._parents(name)
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(data), mode, self._epoch
        self._tar.addfile(member, io.BytesIO(data))

    def add_file(self, name: str, path: Path, *, mode: int | None = None) -> None:
        """Add a file from the disk; executable for all when it is for its owner."""
        executable = path.stat().st_mode & 0o100
        self.add_bytes(name, path.read_bytes(), mode=mode or (0o755 if executable else 0o644))

    def add_large_file(self, name: str, path: Path) -> None:
        """Add a file without holding it in memory."""
        self._parents(name)
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = path.stat().st_size, 0o644, self._epoch
        with path.open("rb") as stream:
            self._tar.addfile(member, stream)

    def add_link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._parents(name)
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
        member.mtime = self._epoch
        self._tar.addfile(member)

    def add_tree(self, prefix: str, directory: Path) -> None:
        """Add all files below a directory, sorted, without byte code."""
        for path in tree_files(directory):
            self.add_file(f"{prefix}/{path.relative_to(directory)}", path)

    def _parents(self, name: str) -> None:
        for parent in reversed(Path(name).parents):
            self._directory(str(parent))

    def _directory(self, name: str) -> None:
        if name in self._directories or name == ".":
            return
        self._directories.add(name)
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, self._epoch
        self._tar.addfile(member)


def tree_files(directory: Path) -> list[Path]:
    """All files below a directory, sorted, without byte code and editors' leftovers."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return sorted(
        path
        for path in found
        if not _SKIPPED_DIRECTORIES.intersection(path.parts)
        and not path.name.endswith((".pyc", "~", ".swp"))
    )


def write_tar(path: Path, files: Mapping[str, bytes], *, epoch: int) -> None:
    """Write a deterministic archive of a few files held in memory."""
    with path.open("wb") as stream, Writer(stream, epoch=epoch) as tar:
        for name, data in sorted(files.items()):
            tar.add_bytes(name, data)


def read_member(archive: Path, names: Iterable[str]) -> bytes | None:
    """The contents of the first of some names (as `etc/os-release`, links followed) in an archive."""
    with tarfile.open(archive) as tar:
        members = {member.name.removeprefix("./").rstrip("/"): member for member in tar}
        for name in names:
            if (found := _follow(members, name)) and (stream := tar.extractfile(found)):
                return stream.read()
    return None


def _follow(members: Mapping[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo | None:
    for _ in range(8):
        member = members.get(name)
        if member is None or not member.issym():
            return member if member is not None and member.isreg() else None
        target = member.linkname
        parent = "" if target.startswith("/") else str(Path(name).parent)
        name = _normal(f"{parent}/{target}")
    return None


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
