# SPDX-License-Identifier: Apache-2.0
"""Normalising: two builds of one thing, stamped differently and saved in either format, give one image."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.archive import LayerFile, SavedImage, image_id, write_image
from builder.normalise import BaseLayer, NormalImage, layer_names, normalise
from runtime.errors import KmeshError

EPOCH = 1_700_000_000
CREATED = "2023-11-14T22:13:20Z"


def layer(
    files: dict[str, bytes], *, mtime: int, owner: str = "", links: dict[str, str] | None = None
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(data), mtime, owner
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mtime = tarfile.LNKTYPE, target, mtime
            tar.addfile(member)
    return stream.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config(layers: list[bytes], *, stamp: str) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": stamp,
            "container": f"container of {stamp}",
            "docker_version": stamp,
            "config": {
                "Hostname": stamp,
                "Entrypoint": ["kmesh"],
                "Env": ["PATH=/usr/bin"],
                "Labels": {"a": "b"},
            },
            "history": [{"created": stamp}],
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(x)}" for x in layers]},
        }
    ).encode()


def archive(path: Path, files: dict[str, bytes], links: dict[str, str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def saved_by_docker_20(path: Path, layers: list[bytes], *, stamp: str) -> Path:
    """`<id>/layer.tar`; a layer that the image has twice is a link the second time."""
    files, links, names = {}, {}, []
    for number, data in enumerate(layers):
        name = f"{stamp}{number}/layer.tar"
        first = layers.index(data)
        if first < number:
            links[name] = f"../{stamp}{first}/layer.tar"
        else:
            files[name] = data
        names.append(name)
    files["abc.json"] = config(layers, stamp=stamp)
    files["manifest.json"] = json.dumps(
        [{"Config": "abc.json", "RepoTags": None, "Layers": names}]
    ).encode()
    return archive(path, files, links)


def saved_by_docker_25(path: Path, layers: list[bytes], *, stamp: str) -> Path:
    """An OCI layout; blobs may be compressed."""
    data = config(layers, stamp=stamp)
    blobs = [gzip.compress(x) if number % 2 else x for number, x in enumerate(layers)]
    names = [f"blobs/sha256/{digest(blob)}" for blob in blobs]
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        **dict(zip(names, blobs, strict=True)),
    }
    files[f"blobs/sha256/{digest(data)}"] = data
    manifest = [{"Config": f"blobs/sha256/{digest(data)}", "RepoTags": None, "Layers": names}]
    files["manifest.json"] = json.dumps(manifest).encode()
    return archive(path, files, {})


BASE = layer({"bin/sh": b"shell"}, mtime=1)


def build(stamp: int, *, shuffled: bool = False) -> list[bytes]:
    files = {"usr/bin/kmesh": b"kmesh", "var/log/dpkg.log": str(stamp).encode(), "tmp/x": b""}
    files |= {"etc/machine-id": str(stamp).encode(), "var/cache/ldconfig/aux-cache": b"%d" % stamp}
    if shuffled:
        files = dict(reversed(files.items()))
    top = layer(files, mtime=stamp, owner=f"user{stamp}", links={"usr/bin/k": "usr/bin/kmesh"})
    return [BASE, top]


def normal(saved: Path, place: Path, base: bytes = BASE) -> NormalImage:
    place.mkdir()
    return normalise(
        saved,
        place / "normal.tar",
        base=[BaseLayer(f"sha256:{digest(base)}", "base")],
        parts=["kmesh"],
        created=CREATED,
        epoch=EPOCH,
        labels={"key": "value"},
    )


def test_stamps_order_and_format_of_a_build_do_not_reach_the_image(tmp_path: Path) -> None:
    one = normal(
        saved_by_docker_20(tmp_path / "1", build(1_800_000_000), stamp="x"), tmp_path / "a"
    )
    two = normal(
        saved_by_docker_25(tmp_path / "2", build(1_900_000_000, shuffled=True), stamp="y"),
        tmp_path / "b",
    )
    assert one.id == two.id
    assert (tmp_path / "a" / "normal.tar").read_bytes() == (
        tmp_path / "b" / "normal.tar"
    ).read_bytes()


def test_content_does_reach_the_image(tmp_path: Path) -> None:
    one = normal(saved_by_docker_20(tmp_path / "1", build(1), stamp="x"), tmp_path / "a")
    other = [BASE, layer({"usr/bin/kmesh": b"another"}, mtime=1)]
    two = normal(saved_by_docker_20(tmp_path / "2", other, stamp="x"), tmp_path / "b")
    assert one.id != two.id


def test_an_image_carries_the_id_of_its_files(tmp_path: Path) -> None:
    top = build(7)
    made = normal(saved_by_docker_20(tmp_path / "1", top, stamp="x"), tmp_path / "a")
    with SavedImage(tmp_path / "a" / "normal.tar") as image:
        environment = dict(line.split("=", 1) for line in image.config["config"]["Env"])
        one, two = image.diff_ids
    # OCI image spec, config.md, "Layer ChainID"
    chain = hashlib.sha256(f"{one} {two}".encode()).hexdigest()
    assert environment == {"PATH": "/usr/bin", "KMESH_IMAGE_DIGEST": f"sha256:{chain}"}
    again = normal(tmp_path / "a" / "normal.tar", tmp_path / "b")
    assert again.id == made.id, "one that the base has is replaced"


def test_what_comes_out_is_an_archive_that_says_what_the_image_is(tmp_path: Path) -> None:
    made = normal(saved_by_docker_25(tmp_path / "1", build(7), stamp="x"), tmp_path / "a")
    with SavedImage(tmp_path / "a" / "normal.tar") as image:
        assert image.diff_ids == tuple(layer.diff_id for layer in made.layers)
        assert image.diff_ids[0] == f"sha256:{digest(BASE)}"
        assert image.layer(0).read() == BASE
        assert image.config["config"]["Entrypoint"] == ["kmesh"]
        assert image.config["config"]["Labels"] == {"a": "b", "key": "value"}
        assert "Hostname" not in image.config["config"]
        assert image.config["created"] == CREATED
        assert [entry["created_by"] for entry in image.config["history"]] == ["base", "kmesh"]
        with tarfile.open(fileobj=image.layer(1)) as tar:
            members = tar.getmembers()
    assert [member.name for member in members] == ["usr/bin/kmesh", "usr/bin/k"]
    assert {member.mtime for member in members} == {EPOCH}
    assert {member.uname for member in members} == {""}
    assert members[1].islnk()


def test_a_layer_that_is_there_twice_is_read_through_its_link(tmp_path: Path) -> None:
    top = layer({"a": b"1"}, mtime=1)
    made = normal(saved_by_docker_20(tmp_path / "1", [BASE, top, top], stamp="x"), tmp_path / "a")
    assert made.layers[1].diff_id == made.layers[2].diff_id


def test_an_image_on_another_base_is_refused(tmp_path: Path) -> None:
    saved = saved_by_docker_20(tmp_path / "1", build(1), stamp="x")
    with pytest.raises(KmeshError, match="does not stand on the base"):
        normal(saved, tmp_path / "a", base=b"another")


def test_an_archive_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    data = config([BASE], stamp="x")
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["gone/layer.tar"]}]
    files = {"c.json": data, "manifest.json": json.dumps(manifest).encode()}
    with pytest.raises(KmeshError, match=r"lacks gone/layer\.tar: it was cut short"):
        normal(archive(tmp_path / "1", files, {}), tmp_path / "a")


@pytest.mark.parametrize("part", [0.0, 0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("save", [saved_by_docker_20, saved_by_docker_25])
def test_an_archive_that_was_cut_short_is_one_clear_line(
    tmp_path: Path, save: Callable[..., Path], part: float
) -> None:
    """What an engine leaves that dies while it saves; the format with compressed layers too."""
    saved = save(tmp_path / "1", [layer({"sh": os.urandom(20000)}, mtime=1), *build(1)], stamp="x")
    os.truncate(saved, int(saved.stat().st_size * part))
    with pytest.raises(KmeshError, match="was cut short"):
        normal(saved, tmp_path / "a")


def test_an_id_is_known_without_writing(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(BASE)
    layers = [LayerFile.of(tmp_path / "layer")]
    assert write_image(io.BytesIO(), {"os": "linux"}, layers) == image_id({"os": "linux"}, layers)


def test_layers_between_base_and_parts_are_packages() -> None:
    assert layer_names(["base"], ["python", "kmesh"], 5) == (
        "base",
        "packages",
        "packages",
        "python",
        "kmesh",
    )
