# SPDX-License-Identifier: Apache-2.0
"""Image archives, as `docker save` writes and `docker load` reads them.

Up to Docker 24 a layer is `<id>/layer.tar`, a second use of it a symbolic link; from Docker 25 on the
archive is an OCI layout with blobs, which may be compressed. Both have a `manifest.json` that names
the configuration and the layers, and that is what is read here. What is written is plain and loads
everywhere: manifest, configuration, layers.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

from builder.tarball import Writer
from runtime.errors import KmeshError

_MANIFEST = "manifest.json"
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class LayerFile:
    """A layer's uncompressed archive on disk.

    Attributes:
        diff_id: "sha256:…" of its bytes.
    """

    path: Path
    diff_id: str

    @classmethod
    def of(cls, path: Path) -> LayerFile:
        """A layer from its archive."""
        with path.open("rb") as stream:
            return cls(path, f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}")


class SavedImage:
    """One image in an archive that an engine wrote."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115
        manifest = json.load(self._member(_MANIFEST))
        if len(manifest) != 1:
            raise KmeshError(f"{path} holds {len(manifest)} images, one was asked for")
        self.config: dict[str, Any] = json.load(self._member(manifest[0]["Config"]))
        self.layers: tuple[str, ...] = tuple(manifest[0]["Layers"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers' ids, from the lowest up."""
        return tuple(self.config["rootfs"]["diff_ids"])

    def layer(self, number: int) -> IO[bytes]:
        """The uncompressed archive of a layer."""
        stream = self._member(self.layers[number])
        compressed = stream.read(2) == _GZIP
        stream.seek(0)
        return cast("IO[bytes]", gzip.open(stream)) if compressed else stream

    def _member(self, name: str) -> IO[bytes]:
        try:
            stream = self._tar.extractfile(name)
        except KeyError as error:
            raise KmeshError(
                f"the engine's image archive lacks {name}: it was cut short"
            ) from error
        assert stream
        return stream


def write_image(
    target: IO[bytes],
    config: Mapping[str, Any],
    layers: Sequence[LayerFile],
    *,
    names: Sequence[str] = (),
) -> str:
    """Write an image archive, by default without a name in it; returns the image's id.

    Args:
        target: a stream.
        config: the image configuration (OCI image spec); its rootfs is set here.
        layers: from the lowest up.
        names: what the image is to be called where it is loaded.
    """
    data = _config_bytes(config, layers)
    digest = hashlib.sha256(data).hexdigest()
    files = [f"{layer.diff_id.removeprefix('sha256:')}.tar" for layer in layers]
    manifest = [{"Config": f"{digest}.json", "RepoTags": list(names) or None, "Layers": files}]
    with Writer(target, epoch=0) as tar:
        tar.add_bytes(_MANIFEST, json.dumps(manifest).encode())
        tar.add_bytes(f"{digest}.json", data)
        for name, layer in dict(zip(files, layers, strict=True)).items():
            tar.add_large_file(name, layer.path)
    return f"sha256:{digest}"


def image_id(config: Mapping[str, Any], layers: Sequence[LayerFile]) -> str:
    """The id that `write_image` would return, without writing anything."""
    return f"sha256:{hashlib.sha256(_config_bytes(config, layers)).hexdigest()}"


def chain_id(diff_ids: Sequence[str]) -> str:
    """The ChainID of a stack of layers (OCI image spec, config): the same when all files are the same."""
    chain, *others = diff_ids
    for diff_id in others:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
    return chain


def _config_bytes(config: Mapping[str, Any], layers: Sequence[LayerFile]) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    return json.dumps({**config, "rootfs": rootfs}, sort_keys=True, separators=(",", ":")).encode()
