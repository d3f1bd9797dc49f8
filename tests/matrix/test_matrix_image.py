# SPDX-License-Identifier: Apache-2.0
"""Running an image's archive on a booted kernel, without the boot: its root, and what counts as a failure."""

from __future__ import annotations

import copy
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.archive import LayerFile, write_image
from ci.kernels.debian import Kernel
from ci.matrix import image
from ci.matrix.image import complaints, unpack
from runtime.errors import KmeshError

GOOD: dict[str, Any] = {
    "report": {"mode": {"mode": "compat"}},
    "mode": "compat",
    "answers": {"blue": 11, "green": 13},
    "status": 0,
    "left": [],
    "log": "serving",
}


def layer(place: Path, files: dict[str, str]) -> LayerFile:
    with tarfile.open(place, "w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return LayerFile.of(place)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An image of two layers, of which the upper one changes a file of the lower."""
    made = tmp_path / "image.tar"
    layers = [
        layer(tmp_path / "one.tar", {"usr/bin/kmesh": "old", "etc/os-release": "ID=x"}),
        layer(tmp_path / "two.tar", {"usr/bin/kmesh": "new", "usr/lib/kmesh/bpf/o": "object"}),
    ]
    with made.open("wb") as stream:
        write_image(stream, {"config": {}}, layers, names=["kmesh:x"])
    return made


def test_layers_are_put_one_over_the_other(archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "guest/image"
    unpack(archive, root)
    assert (root / "usr/bin/kmesh").read_text() == "new"
    assert (root / "etc/os-release").read_text() == "ID=x"
    assert (root / "usr/lib/kmesh/bpf/o").read_text() == "object"


def test_a_good_run_has_no_complaints() -> None:
    assert complaints(GOOD) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mode": "none", "status": 3}, "ended with 3 instead of serving"),
        ({"report": {"mode": {"mode": "enhanced"}}}, "its prober says"),
        ({"answers": {"blue": 24}}, "not both backends"),
        ({"status": 1}, "ended with 1"),
        ({"left": ["/sys/fs/bpf/kmesh"]}, "it left"),
    ],
)
def test_each_thing_that_goes_wrong_is_a_complaint(change: Any, said: str) -> None:
    [line] = complaints({**copy.deepcopy(GOOD), **change})
    assert said in line


@pytest.fixture
def command(archive: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The command line, with what it boots in the place of a boot: the list is the guest's words."""
    booted: list[Any] = []

    def inside(kernel: Kernel, words: list[str], **more: Any) -> Any:
        [extra] = more["extra"]
        assert extra.stat().st_size > 0
        booted.append((kernel.release, words))
        return booted

    monkeypatch.setattr(image, "inside", inside)
    monkeypatch.setattr(image, "accelerator", lambda _: "tcg")
    monkeypatch.setattr(
        image, "fetch", lambda _: [Kernel(release="6.1", image=Path("/x"), config=Path("/y"))]
    )
    monkeypatch.setattr("sys.argv", ["image", str(archive), "6.1"])
    return booted


def test_the_command_ends_with_0_where_it_served(
    command: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image, "parse", lambda _: [GOOD])
    assert image.main() == 0
    assert command == [("6.1", ["image"])]
    assert "6.1: mode compat" in capsys.readouterr().out


def test_the_command_ends_with_1_where_it_did_not_and_shows_the_log(
    command: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image, "parse", lambda _: [{**GOOD, "left": ["/x"], "log": "why"}])
    assert image.main() == 1
    assert "FAILED: it left ['/x']\nwhy" in capsys.readouterr().err


def test_a_guest_that_fails_is_one_line(
    command: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def parse(_outcome: Any) -> Any:
        raise KmeshError("the guest ended with status 1")

    monkeypatch.setattr(image, "parse", parse)
    assert image.main() == 1
    assert capsys.readouterr().err == "image: the guest ended with status 1\n"


@pytest.mark.parametrize("words", [["/nowhere", "6.1"], ["ARCHIVE", "4.19"], ["ARCHIVE", "cloud"]])
def test_what_cannot_be_booted_is_said_before(
    words: list[str],
    archive: Path,
    command: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(archive) if word == "ARCHIVE" else word for word in words]
    monkeypatch.setattr("sys.argv", ["image", *given])
    assert image.main() == 1
    assert capsys.readouterr().err.startswith("image: ")
    assert command == []
