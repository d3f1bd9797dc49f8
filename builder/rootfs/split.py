# SPDX-License-Identifier: Apache-2.0
"""One root, cut into layers: what every image has, and on top of it what some have more.

All layers come from one bootstrap, so that their packages fit together. A layer holds the files of
the packages in its closure; what no package owns (links made by maintainer scripts, byte code) goes
to the first layer, or where its source is. Each layer's dpkg status tells what is there with it.
"""

from __future__ import annotations

import fnmatch
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.rootfs.dpkg import Package, closure, owner_lists, parse_status, status_of
from builder.tarball import clamp

STATUS = "var/lib/dpkg/status"
_INFO = "var/lib/dpkg/info/"
_CACHE_DIRECTORY = "/__pycache__/"


@dataclass(frozen=True)
class Layer:
    """What a layer holds.

    Attributes:
        name: what it is called in reports.
        keep: the packages that are wanted; their dependencies come along.
        cut: dependencies that the images do without.
    """

    name: str
    keep: tuple[str, ...]
    cut: frozenset[str]


@dataclass(frozen=True)
class Root:
    """A bootstrapped root, as far as splitting needs to know it."""

    members: Mapping[str, tarfile.TarInfo]
    packages: Mapping[str, Package]
    owners: Mapping[str, set[str]]
    links: Mapping[str, str]


def split(
    archive: Path,
    layers: Sequence[Layer],
    targets: Sequence[Path],
    *,
    dropped: Sequence[str],
    epoch: int,
) -> list[list[Package]]:
    """Cut a root archive into layers, each an archive of its own.

    Args:
        archive: an uncompressed tar of a whole root.
        layers: from the lowest up; each includes the closures of those below.
        targets: where the layers are written.
        dropped: patterns (fnmatch) of paths that go into none.
        epoch: no file is dated later than this, in seconds since 1970.

    Returns:
        for each layer the packages that are there with it, sorted by name.

    Raises:
        KeyError: a package to keep is not in the root.
    """
    with tarfile.open(archive) as tar:
        root = _read_root(tar)
        closures = _closures(root, layers)
        for number, target in enumerate(targets):
            below = closures[number - 1] if number else None
            _write_layer(tar, root, closures[number], below, target, dropped, epoch)
    return [sorted((root.packages[name] for name in c), key=lambda p: p.name) for c in closures]


def _read_root(tar: tarfile.TarFile) -> Root:
    members = {_plain(member.name): member for member in tar}
    info = {
        name.removeprefix(_INFO): _text(tar, member)
        for name, member in members.items()
        if name.startswith(_INFO) and name.endswith(".list")
    }
    links = {
        name: m.linkname.strip("/") for name, m in members.items() if m.issym() and "/" not in name
    }
    owners: dict[str, set[str]] = {}
    for path, names in owner_lists(info).items():
        owners.setdefault(_resolve(path, links), set()).update(names)
    return Root(members, parse_status(_text(tar, members[STATUS])), owners, links)


def _plain(name: str) -> str:
    return name.removeprefix("./").strip("/")


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    stream = tar.extractfile(member)
    return stream.read().decode() if stream else ""


def _resolve(path: str, links: Mapping[str, str]) -> str:
    # dpkg's lists say /bin/sh where merged-/usr has /usr/bin/sh.
    top, _, rest = path.partition("/")
    return f"{links[top]}/{rest}" if rest and top in links else path


def _closures(root: Root, layers: Sequence[Layer]) -> list[set[str]]:
    found: list[set[str]] = []
    for layer in layers:
        below = found[-1] if found else set()
        found.append(below | closure(root.packages, layer.keep, layer.cut))
    return found


def _write_layer(
    tar: tarfile.TarFile,
    root: Root,
    packages: set[str],
    below: set[str] | None,
    target: Path,
    dropped: Sequence[str],
    epoch: int,
) -> None:
    """Write the members that these packages own and those of the layer below do not."""
    names = [name for name in root.members if name and _belongs(root, name, packages, below)]
    kept = [name for name in names if not any(fnmatch.fnmatch(name, p) for p in dropped)]
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as out:
        for name in _with_parents(root, sorted(kept)):
            _copy(tar, root.members[name], name, out, epoch)
        status = status_of(root.packages, packages).encode()
        member = tarfile.TarInfo(STATUS)
        member.size, member.mtime = len(status), epoch
        out.addfile(member, io.BytesIO(status))


def _belongs(root: Root, name: str, packages: set[str], below: set[str] | None) -> bool:
    if name == STATUS or (
        root.members[name].isdir() and name not in root.owners and below is not None
    ):
        return False
    owners = _owners(root, name)
    if owners is None:
        return below is None
    if below is not None and owners & below:
        return False
    return bool(owners & packages)


def _owners(root: Root, name: str) -> set[str] | None:
    """Who owns a path; None: nobody."""
    if name.startswith(_INFO) and "." in name:
        return {name.removeprefix(_INFO).rpartition(".")[0].split(":")[0]}
    if _CACHE_DIRECTORY in name:
        directory, _, file = name.rpartition(_CACHE_DIRECTORY)
        return root.owners.get(f"{directory}/{file.split('.')[0]}.py")
    return root.owners.get(name)


def _with_parents(root: Root, names: Sequence[str]) -> list[str]:
    """The names, and each directory above them that the root has, in an order for extraction."""
    wanted = set(names)
    for name in names:
        wanted.update(str(parent) for parent in Path(name).parents if str(parent) in root.members)
    # A hard link comes after its target: links last among equals is enough, for targets are files.
    return sorted(wanted, key=lambda name: (root.members[name].islnk(), name))


def _copy(
    tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, out: tarfile.TarFile, epoch: int
) -> None:
    made = clamp(member, epoch=epoch)
    made.name, made.linkname = name, _plain(member.linkname) if member.islnk() else member.linkname
    out.addfile(made, tar.extractfile(member) if member.isreg() else None)
