# SPDX-License-Identifier: Apache-2.0
"""rpm's database, read from a root by the host's rpm, and the list of packages that stays in its place.

A database holds the time of each installation, and on Debian it stands in the directory of whoever
called. Nothing in the image needs one; what scanners and the bill of materials need is the list, which
stands where images without rpm have it (CBL-Mariner; Trivy reads it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.process import run

MANIFEST = "var/lib/rpmmanifest/container-manifest-2"
DATABASE = "var/lib/rpm"
# What makes librpm put it there, in ~/.rpmmacros: Debian's stands below $HOME.
MACROS = f"%_dbpath /{DATABASE}\n"
_FIELDS = ("NAME", "VERSION", "RELEASE", "ARCH", "EPOCHNUM", "SIZE", "BUILDTIME", "VENDOR")
_FORMAT = "\\t".join(f"%{{{name}}}" for name in (*_FIELDS, "SOURCERPM", "SHA256HEADER")) + "\\n"
_KEYS = "gpg-pubkey"  # a key that packages were checked against: no package


@dataclass(frozen=True)
class RpmPackage:
    """An installed package.

    Attributes:
        version: version and release.
        digest: SHA-256 of its header, which covers its files.
    """

    name: str
    version: str
    architecture: str
    epoch: str
    size: str
    build_time: str
    vendor: str
    source: str
    digest: str

    @property
    def input(self) -> str:
        """As provenance names it: "python3-3.11.6-9.oe2403.x86_64 sha256:…"."""
        return f"{self.name}-{self.version}.{self.architecture} sha256:{self.digest}"

    def line(self, installed: int) -> str:
        """As the list has it, with the time when it is said to have been installed."""
        fields = (self.name, self.version, installed, self.build_time, self.vendor, "(none)")
        return "\t".join(map(str, (*fields, self.size, self.architecture, self.epoch, self.source)))


def installed(root: Path) -> list[RpmPackage]:
    """The packages of a root whose database is at DATABASE, sorted.

    Raises:
        CommandError: rpm is not on this host, or cannot read the database.
    """
    query = ["rpm", f"--root={root}", f"--dbpath=/{DATABASE}", "-qa", "--queryformat", _FORMAT]
    return sorted(_parse(run(query).stdout), key=lambda package: package.input)


def _parse(text: str) -> Iterator[RpmPackage]:
    for line in text.splitlines():
        name, version, release, architecture, *others = line.split("\t")
        if name != _KEYS:
            yield RpmPackage(name, f"{version}-{release}", architecture, *others)


def manifest(packages: list[RpmPackage], *, epoch: int) -> str:
    """The list of packages, a line each."""
    return "".join(f"{package.line(epoch)}\n" for package in packages)


def parse_manifest(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, version with release, and architecture of each package in such a list."""
    for line in text.splitlines():
        fields = line.split("\t")
        yield fields[0], fields[1], fields[7]
