# SPDX-License-Identifier: Apache-2.0
"""A .deb of the objects, for hosts without containers: written here, for the compile image has no dpkg-deb.

Format: deb(5).
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from pathlib import Path

from builder.host.package import PackageFacts
from builder.tarball import Writer

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_deb(target: Path, facts: PackageFacts, files: Mapping[str, bytes], *, epoch: int) -> Path:
    """Write the package.

    Args:
        target: a directory for it.
        facts: name, version and so on.
        files: path without the leading slash → content.
        epoch: the date of everything, in seconds since 1970.

    Returns:
        the package.
    """
    architecture = _ARCHITECTURES.get(facts.machine, facts.machine)
    version = facts.version.replace("-", "~")  # a hyphen would begin a Debian revision
    size = -(-sum(map(len, files.values())) // 1024)
    control = (
        f"Package: {facts.name}\nVersion: {version}\nArchitecture: {architecture}\n"
        f"Maintainer: {facts.vendor}\nInstalled-Size: {size}\nSection: net\nPriority: optional\n"
        f"Homepage: {facts.url}\nDescription: {facts.summary}\n {facts.description}\n"
    )
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tar({"control": control.encode()}, epoch),
        "data.tar.gz": _tar(files, epoch),
    }
    path = target / f"{facts.name}_{version}_{architecture}.deb"
    path.write_bytes(b"!<arch>\n" + b"".join(_entry(*part, epoch) for part in parts.items()))
    return path


def _tar(files: Mapping[str, bytes], epoch: int) -> bytes:
    plain = io.BytesIO()
    with Writer(plain, epoch=epoch) as tar:
        for name, data in sorted(files.items()):
            tar.add_bytes(name, data)
    return gzip.compress(plain.getvalue(), mtime=0)


def _entry(name: str, data: bytes, epoch: int) -> bytes:
    head = f"{name:<16}{epoch:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n"
    return head.encode("ascii") + data + b"\n" * (len(data) % 2)
