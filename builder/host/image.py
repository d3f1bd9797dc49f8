# SPDX-License-Identifier: Apache-2.0
"""An image for exactly one kernel, made by the compile image from its own root, without any engine.

Its lowest layer is this root less the toolchain, cut along dpkg's lists; on it stand the objects.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.archive import LayerFile, write_image
from builder.checkout import Checkout
from builder.context import OBJECTS, TREE
from builder.host.evidence import Target
from builder.host.reasons import HostError, Reason
from builder.rootfs.debian import BASE_PACKAGES, CUT, DROPPED
from builder.rootfs.dpkg import Package, parse_status
from builder.rootfs.split import STATUS, Layer, split
from builder.tarball import Writer

# What the compile image has more than the image that it makes.
_NOT_THE_IMAGE = (
    f"{OBJECTS}/*",
    "usr/share/kmesh/*",
    "usr/lib/kmesh/python/builder/*",
    "usr/bin/kmesh-build",
    ".dockerenv",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "run/*",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TAG_LENGTH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image archive: its name, its id, and the packages in it."""

    reference: str
    id: str
    archive: Path
    packages: tuple[Package, ...]


def reference(target: Target, *, hub: str, tag: str) -> str:
    """The image's name, HUB/kmesh:TAG-OS-KERNEL, in the characters that a tag may have."""
    wanted = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{tag}-{target.os}-{target.release}")
    return f"{hub.rstrip('/')}/kmesh:{wanted[:_TAG_LENGTH]}"


def require_compile_image(root: Path = Path("/")) -> None:
    """Never take a host's own root for an image's.

    Raises:
        HostError: this is not the compile image.
    """
    if not ((root / STATUS).is_file() and (root / TREE / "images").is_dir()):
        raise HostError(
            Reason.NO_IMAGE,
            "an image is made of the compile image's own root, and this is none",
            hint="run this in the image kmesh-build, or leave the image out with --no-image",
        )


def write_host_image(
    archive: Path,
    target: Target,
    *,
    name: str,
    objects: Path,
    labels: Mapping[str, str],
    scratch: Path,
    checkout: Checkout,
    root: Path = Path("/"),
) -> Image:
    """Write the image archive.

    Args:
        archive: where it goes.
        target: the kernel that the objects are for.
        name: the image's.
        objects: the directory of objects.
        labels: what it is to say of itself.
        scratch: a directory with room for the root twice.
        checkout: what it is built from; its date is that of all files.
        root: the root of the compile image.

    Raises:
        HostError: this is not the compile image.
    """
    require_compile_image(root)
    base, packages = _base(root, scratch, epoch=checkout.epoch)
    top = scratch / "objects.tar"
    with top.open("wb") as stream, Writer(stream, epoch=checkout.epoch) as tar:
        tar.add_tree(OBJECTS, objects)
    config = _config(target, labels=labels, created=checkout.created)
    with archive.open("wb") as stream:
        layers = [LayerFile.of(base), LayerFile.of(top)]
        made = write_image(stream, config, layers, names=[name])
    return Image(reference=name, id=made, archive=archive, packages=tuple(packages))


def _base(root: Path, scratch: Path, *, epoch: int) -> tuple[Path, Sequence[Package]]:
    whole, base = scratch / "whole.tar", scratch / "base.tar"
    _pack(root, whole, without=scratch)
    installed = parse_status((root / STATUS).read_text())
    keep = tuple(package for package in BASE_PACKAGES if package in installed)
    [packages] = split(
        whole,
        [Layer("base", keep, CUT)],
        [base],
        dropped=(*DROPPED, *_NOT_THE_IMAGE),
        epoch=epoch,
    )
    whole.unlink()
    return base, packages


def _pack(root: Path, target: Path, *, without: Path) -> None:
    """Everything of the root but what is mounted into it."""
    mounted = {*_mounts(), str(without), "/proc", "/sys", "/dev", "/tmp", "/run"}  # noqa: S108
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in _walk(root, mounted):
            tar.add(path, arcname=str(path.relative_to(root)), recursive=False)


def _walk(root: Path, mounted: set[str]) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        here = Path(directory)
        names[:] = sorted(name for name in names if str(here / name) not in mounted)
        for name in (*names, *sorted(files)):
            path = here / name
            if str(path) not in mounted and not path.is_socket():
                yield path


def _mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split(" ")[4] for line in lines} - {"/"}


def _config(target: Target, *, labels: Mapping[str, str], created: str) -> dict[str, object]:
    return {
        "architecture": _ARCHITECTURES.get(target.machine, target.machine),
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["kmesh"],
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG=C.UTF-8",
                "PYTHONUNBUFFERED=1",
            ],
            "Labels": dict(labels),
            "WorkingDir": "/",
        },
        "history": [{"created": created, "created_by": part} for part in ("base", "objects")],
    }
