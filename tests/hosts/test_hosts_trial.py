# SPDX-License-Identifier: Apache-2.0
"""What the compile image leaves is looked at: each thing that is not as it should be is a complaint.

The image itself is run in tests/builder/test_builder_images.py, and on all hosts by `make hosts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

import ci.hosts.__main__ as trials_of_hosts
from builder.cache import file_sha256
from builder.engine import Engine, RunOptions, RunResult
from builder.host.reasons import Reason
from ci.hosts.roots import Host, Root, chosen, hosts
from ci.hosts.trial import Trial, run, trials
from runtime.errors import KmeshError

HOST = Host(name="sid", os="debian")
REFUSED = Trial(name="nothing", reason=Reason.NO_EVIDENCE)
HEADERS = Trial(name="headers", headers=True, evidence="headers")
PACKAGE = Trial(name="headers", headers=True, evidence="headers", arguments=("--no-image",))
NAME = "kmesh-hosts-debian-1.2_x.tar"


class Container:
    """An engine whose container writes to OUT, and ends as it is told to."""

    def __init__(self, leave: Callable[[Path], None], *, status: int, stderr: str) -> None:
        self._leave, self._done = leave, RunResult(status, "", stderr)
        self.options: RunOptions | None = None
        self.command: list[str] = []

    def run(self, _image: str, command: list[str], *, options: RunOptions, what: str) -> RunResult:
        assert what
        self.options, self.command = options, command
        self._leave(Path(next(iter(options.mounts))))
        return self._done


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(host=HOST, path=tmp_path / "root", release="1.2+x", btf=tmp_path / "btf")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def told(container: Container, root: Root, trial: Trial, out: Path) -> tuple[str, ...]:
    return run(cast("Engine", container), "id", root, trial, out).complaints


def refused(
    *,
    status: int = 19,
    stderr: str = "error: [no-evidence] x\nhint: y",
    reason: str = "no-evidence",
) -> Container:
    def leave(out: Path) -> None:
        (out / "failure.json").write_text(json.dumps({"reason": reason}))

    return Container(leave, status=status, stderr=stderr)


def made(change: Callable[[dict[str, Any], Path], None] = lambda *_: None) -> Container:
    def leave(out: Path) -> None:
        item = out / "objects/compat/connect4.bpf.o"
        item.parent.mkdir(parents=True)
        item.write_bytes(b"object")
        (out / NAME).write_bytes(b"image")
        (out / "x.deb").write_bytes(b"package")
        (out / "sbom.spdx.json").write_text('{"spdxVersion": "SPDX-2.3", "packages": [1]}')
        manifest: dict[str, Any] = {
            "kernel": {"os": "debian", "release": "1.2+x", "running": False},
            "evidence": {"kind": "headers"},
            "verified": {"how": "unverified", "paths": ["compat"]},
            "objects": [{"path": str(item.relative_to(out)), "sha256": file_sha256(item)}],
            "image": {
                "reference": "kmesh.test/kmesh:hosts-debian-1.2_x",
                "archive": NAME,
                "sha256": file_sha256(out / NAME),
            },
            "packages": [{"path": "x.deb", "sha256": file_sha256(out / "x.deb")}],
        }
        change(manifest, out)
        (out / "manifest.json").write_text(json.dumps(manifest))

    return Container(leave, status=0, stderr="")


def test_a_refusal_with_its_reason_is_right(root: Root, out: Path) -> None:
    assert told(refused(), root, REFUSED, out) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": 0}, "status 0, not 19"),
        ({"status": 14}, "status 14, not 19"),
        ({"stderr": "error: [no-evidence] x"}, "nor a hint"),
        ({"stderr": "error: x\nhint: y"}, "neither no-evidence"),
        ({"reason": "no-headers"}, "failure.json says"),
    ],
)
def test_each_wrong_refusal_is_a_complaint(root: Root, out: Path, change: Any, said: str) -> None:
    assert any(said in line for line in told(refused(**change), root, REFUSED, out))


def test_a_refusal_that_leaves_results_is_a_complaint(root: Root, out: Path) -> None:
    (out / "manifest.json").write_text("{}")
    assert any("in OUT are" in line for line in told(refused(), root, REFUSED, out))


def test_what_is_whole_is_right_and_the_host_is_what_was_mounted(root: Root, out: Path) -> None:
    container = made()
    assert told(container, root, HEADERS, out) == ()
    assert container.options
    assert container.options.mounts[f"{root.path}/usr/src"] == "/usr/src:ro"
    assert container.options.mounts[f"{root.path}/etc/os-release"] == "/host/etc/os-release:ro"
    assert container.options.capabilities == ()
    assert container.command[:3] == ["host", "--target-kernel", "1.2+x"]


def _another_file(place: str) -> Callable[[dict[str, Any], Path], None]:
    def change(_manifest: dict[str, Any], out: Path) -> None:
        (out / place).write_bytes(b"changed")

    return change


def _says(*path: Any, value: Any) -> Callable[[dict[str, Any], Path], None]:
    def change(manifest: dict[str, Any], _out: Path) -> None:
        place: Any = manifest
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "trial", "said"),
    [
        (_says("kernel", "os", value="debian12"), HEADERS, "the manifest is of"),
        (_says("kernel", "running", value=True), HEADERS, "the manifest is of"),
        (_says("evidence", "kind", value="packaged"), HEADERS, "not headers"),
        (_says("verified", "how", value="names"), HEADERS, "verified is"),
        (_says("verified", "paths", value=[]), HEADERS, "compat is not among"),
        (_says("objects", value=[]), HEADERS, "listed"),
        (_says("image", value=None), HEADERS, "the image is None"),
        (_says("image", "reference", value="kmesh:latest"), HEADERS, "the image is kmesh:latest"),
        (_another_file(NAME), HEADERS, "no archive"),
        (_another_file("objects/compat/connect4.bpf.o"), HEADERS, "are there"),
        (_another_file("x.deb"), PACKAGE, "x.deb is another file"),
        (_says("packages", value=[]), PACKAGE, "no package"),
        (lambda _, out: (out / "sbom.spdx.json").unlink(), HEADERS, "no bill of materials"),
    ],
)
def test_each_thing_that_is_not_whole_is_a_complaint(
    root: Root, out: Path, change: Any, trial: Trial, said: str
) -> None:
    found = told(made(change), root, trial, out)
    assert [line for line in found if said in line], found


def test_a_failure_where_a_result_is_due_is_a_complaint(root: Root, out: Path) -> None:
    [line] = told(refused(), root, HEADERS, out)
    assert line.startswith("status 19")


def test_the_last_trial_makes_the_image_and_others_fail_each_in_its_own_way(
    root: Root, tmp_path: Path
) -> None:
    tried = list(trials(root, junk=tmp_path / "junk"))
    reasons = [each.reason for each in tried if each.reason]
    assert len(set(reasons)) == len(reasons) == 3
    assert "--no-image" not in tried[-1].arguments
    assert tried[-1].btf == root.btf


def test_hosts_are_chosen_by_name() -> None:
    assert {"rpm", "sid"} <= {host.name for host in hosts()}
    assert [host.name for host in chosen(["rpm", "sid"])] == ["rpm", "sid"]
    assert chosen([]) == hosts()
    with pytest.raises(KmeshError, match="no host is called suse"):
        chosen(["suse"])


class Named:
    """An engine that is asked to take a name away."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    def remove(self, image: str) -> None:
        self.removed.append(image)


@pytest.mark.parametrize("fails", [False, True])
def test_no_name_is_left_in_the_engine(*, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Built:
        def __init__(self, *_words: object) -> None:
            if fails:
                raise KmeshError("no space")

        def run(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(id="sha256:1")]

    for name, stand_in in {
        "Pipeline": Built, "make_objects": Mock(), "judge_known": Mock(),
    }.items():  # fmt: skip
        monkeypatch.setattr(trials_of_hosts, name, stand_in)
    engine, seen = Named(), []
    with (
        suppress(KmeshError),
        trials_of_hosts._compile_image(cast("Engine", engine), Mock()) as made,
    ):
        seen += [made, *engine.removed]
    assert seen == ([] if fails else ["sha256:1"])
    assert engine.removed == ["kmesh.test/kmesh-build:hosts"]
