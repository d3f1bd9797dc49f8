# SPDX-License-Identifier: Apache-2.0
"""What makes an image reproducible: the same image again, without what the engine stamped on it.

The classic builder writes the hour into every file it copies, into the configuration and into the
history, and RUN steps leave logs and caches. Here each layer above the base is written again: files
dated at the commit, sorted, without what changes from run to run. Layers of the base stay as they are,
so that they stay shared with whoever else has them.
"""

from __future__ import annotations

import fnmatch
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from builder.archive import LayerFile, SavedImage, chain_id, write_image
from builder.tarball import clean
from runtime.errors import KmeshError

# An image cannot know its own id, but it can carry the id of its files. What is found out about a kernel
# with them is kept under it (runtime.probe.cache).
CONTENT = "KMESH_IMAGE_DIGEST"
VOLATILE = (
    "etc/.pwd.lock",
    "etc/hostname",
    "etc/hosts",
    "etc/machine-id",
    "etc/resolv.conf",
    "root/.cache",
    "root/.cache/*",
    "run/*",
    "tmp/*",
    "var/cache/*/*",
    "var/lib/apt/lists/*",
    "var/lib/dnf/*",
    "var/log/*",
    "var/tmp/*",
)
_EMPTIED = ("dev", "proc", "sys")
_KEPT = (
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Labels",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
)


@dataclass(frozen=True)
class BaseLayer:
    """A layer of the base.

    Attributes:
        name: what it is called in the image's history.
        path: its archive, where it is at hand.
    """

    diff_id: str
    name: str
    path: Path | None = None


@dataclass(frozen=True)
class NormalImage:
    """A normalised image.

    Attributes:
        id: the id that an engine without a content store of its own gives it.
        layers: its layers, from the lowest up.
    """

    id: str
    layers: tuple[LayerFile, ...]


def normalise(
    saved: Path,
    target: Path,
    *,
    base: Sequence[BaseLayer],
    parts: Sequence[str],
    created: str,
    epoch: int,
    labels: Mapping[str, str],
) -> NormalImage:
    """Write an image archive again, reproducibly.

    Args:
        saved: what the engine saved.
        target: where the new archive goes; layers are put beside it.
        base: layers that are not touched.
        parts: names of the layers on top of them, the uppermost last; others are "packages".
        created: the image's date, RFC 3339.
        epoch: the date of its files, seconds since 1970.
        labels: labels to add: what only a normalised image has.

    Raises:
        KmeshError: the archive does not begin with the base's layers, or was cut short.
    """
    with _whole(), SavedImage(saved) as image:
        if image.diff_ids[: len(base)] != tuple(layer.diff_id for layer in base):
            raise KmeshError("the image that was built does not stand on the base that was given")
        layers = [
            _base_layer(image, number, layer, target.parent) for number, layer in enumerate(base)
        ]
        layers += [
            _built_layer(image, number, target.parent, epoch=epoch)
            for number in range(len(base), len(image.diff_ids))
        ]
        names = layer_names([layer.name for layer in base], parts, len(layers))
        environment = {CONTENT: chain_id([layer.diff_id for layer in layers])}
        config = normal_config(
            image.config, names, created=created, labels=labels, environment=environment
        )
    with target.open("wb") as stream:
        return NormalImage(write_image(stream, config, layers), tuple(layers))


@contextmanager
def _whole() -> Iterator[None]:
    try:
        yield
    except (tarfile.ReadError, EOFError) as error:
        hint = "see whether the engine still runs; nothing was tagged; run it again to continue"
        raise KmeshError(
            f"the engine's image archive was cut short ({error})", hint=hint
        ) from error


def _base_layer(image: SavedImage, number: int, layer: BaseLayer, scratch: Path) -> LayerFile:
    path = layer.path or scratch / f"layer-{number}.tar"
    if layer.path is None:
        with image.layer(number) as source, path.open("wb") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
    return LayerFile(path, layer.diff_id)


def _built_layer(image: SavedImage, number: int, scratch: Path, *, epoch: int) -> LayerFile:
    path = scratch / f"layer-{number}.tar"
    with image.layer(number) as source, path.open("wb") as stream:
        normalise_layer(source, stream, epoch=epoch)
    return LayerFile.of(path)


def layer_names(base: Sequence[str], parts: Sequence[str], count: int) -> tuple[str, ...]:
    """A name for each layer; what is between base and parts came from RUN steps: packages."""
    between = count - len(base) - len(parts)
    return (*base, *["packages"] * between, *parts)


def normalise_layer(source: IO[bytes], target: IO[bytes], *, epoch: int) -> None:
    """Write a layer's archive again: sorted, dated, without what is volatile."""
    with (
        tarfile.open(fileobj=source) as tar,
        tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as out,
    ):
        members = {member.name.rstrip("/"): member for member in tar if not _volatile(member.name)}
        # Hard links after what they link to.
        for name in sorted(members, key=lambda name: (members[name].islnk(), name)):
            made = clean(members[name], epoch=epoch)
            out.addfile(made, tar.extractfile(members[name]) if made.isreg() else None)


def _volatile(name: str) -> bool:
    plain = name.removeprefix("./").rstrip("/")
    if plain.split("/")[0] in _EMPTIED:
        return True
    return any(fnmatch.fnmatch(plain, pattern) for pattern in VOLATILE)


def normal_config(
    config: Mapping[str, Any],
    names: Sequence[str],
    *,
    created: str,
    labels: Mapping[str, str],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """The parts of an image configuration (OCI image spec) that say what the image is, and no more."""
    inner = config.get("config") or {}
    kept = {key: inner[key] for key in _KEPT if inner.get(key)}
    kept["Env"] = [
        *(line for line in kept.get("Env", []) if line.partition("=")[0] not in environment),
        *(f"{name}={value}" for name, value in environment.items()),
    ]
    all_labels = {**kept.get("Labels", {}), **labels}
    return {
        "architecture": config["architecture"],
        "os": config["os"],
        "created": created,
        "config": {**kept, "Labels": all_labels, "WorkingDir": "/"},
        "history": [{"created": created, "created_by": name} for name in names],
    }
