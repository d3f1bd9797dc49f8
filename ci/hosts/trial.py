# SPDX-License-Identifier: Apache-2.0
"""The compile image, run as a container on another distribution's files: what it says, and what it leaves."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.cache import file_sha256
from builder.engine import Engine, RunOptions, RunResult
from builder.host.reasons import Reason
from ci.hosts.roots import Root

_HEADERS = ("/lib/modules", "/usr/src")  # what the README says to mount
_BTF = "/evidence/btf"
HUB, TAG = "kmesh.test", "hosts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of the compile image.

    Attributes:
        name: what of the host it is given.
        arguments: of `kmesh-build host`, beside those of every run.
        headers: the host's headers are mounted.
        btf: so is the BTF of its kernel, or another file in its place.
        writable: OUT may be written to.
        reason: how it must fail, None where it must not.
        evidence: what it must be made from, where it does not fail.
    """

    name: str
    arguments: tuple[str, ...] = ()
    headers: bool = False
    btf: Path | None = None
    writable: bool = True
    reason: Reason | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of one: the manifest where it made something, and what was wrong with that."""

    trial: Trial
    status: int
    manifest: Mapping[str, Any] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()


def trials(root: Root, *, junk: Path) -> Iterator[Trial]:
    """What is tried on a host, the ways that fail first; the last one makes the image.

    Args:
        root: the host's.
        junk: a file that is no BTF.
    """
    yield Trial(name="nothing", reason=Reason.NO_EVIDENCE)
    yield Trial(
        name="BTF that is none", btf=junk, arguments=("--fresh",), reason=Reason.BAD_EVIDENCE
    )
    yield Trial(name="OUT read-only", headers=True, writable=False, reason=Reason.OUT_NOT_WRITABLE)
    yield Trial(name="headers", headers=True, evidence="headers", arguments=("--no-image", "--deb"))
    yield Trial(
        name="headers and BTF",
        headers=True,
        btf=root.btf,
        evidence="prebuilt" if root.btf else "headers",
    )


def try_all(
    engine: Engine, image: str, root: Root, out: Path, *, say: Callable[[str], None]
) -> Iterator[str]:
    """Try everything on a host; gives what was not as it should be, a line each.

    Args:
        engine: where the image is.
        image: the compile image's id.
        root: the host's.
        out: where what was made stays, in a directory for each trial.
        say: told what came of each.
    """
    junk = out / "junk"
    out.mkdir(parents=True, exist_ok=True)
    junk.write_bytes(b"no BTF")
    for number, trial in enumerate(trials(root, junk=junk)):
        place = out / str(number)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        began = time.monotonic()
        told = run(engine, image, root, trial, place)
        yield from (f"with {trial.name}: {line}" for line in told.complaints)
        made = told.manifest.get("image", {})
        if made and not told.complaints:
            yield from starts(engine, told, place)
        what = made.get("reference") or (trial.reason.label if trial.reason else "objects")
        spent = time.monotonic() - began
        say(
            f"{root.host.name} {root.release}, with {trial.name}: status {told.status}, {what}, {spent:.0f} s"
        )


def run(engine: Engine, image: str, root: Root, trial: Trial, out: Path) -> Told:
    """Run the compile image, and look at what it left.

    Args:
        engine: where the image is.
        image: the compile image's id.
        root: the host that it is to take itself to run on.
        trial: what it is given.
        out: an empty directory.
    """
    mounts = {
        str(out): "/out" if trial.writable else "/out:ro",
        f"{root.path}/etc/os-release": "/host/etc/os-release:ro",
    }
    arguments = ["host", "--target-kernel", root.release, "--hub", HUB, "--tag", TAG]
    if trial.headers:
        mounts |= {f"{root.path}{place}": f"{place}:ro" for place in _HEADERS}
    if trial.btf:
        mounts[str(trial.btf)] = f"{_BTF}:ro"
        arguments += ["--btf", _BTF]
    done = engine.run(
        image,
        [*arguments, *trial.arguments, "--output", "json"],
        options=RunOptions(mounts=mounts),
        what=f"kmesh-build on {root.host.name} with {trial.name}",
    )
    manifest = _read(out / "manifest.json")
    complaints = (
        _failed(done, trial, out) if trial.reason else _made(done, trial, root, out, manifest)
    )
    return Told(trial=trial, status=done.status, manifest=manifest, complaints=tuple(complaints))


def _failed(done: RunResult, trial: Trial, out: Path) -> Iterator[str]:
    assert trial.reason is not None
    said = done.stderr.strip().splitlines()[-2:]
    if done.status != trial.reason.status:
        yield f"status {done.status}, not {trial.reason.status}: {said}"
    if f"[{trial.reason.label}]" not in done.stderr or "hint: " not in done.stderr:
        yield f"neither {trial.reason.label} nor a hint: {said}"
    left = sorted(path.name for path in out.iterdir())
    if left != (["failure.json"] if trial.writable else []):
        yield f"in OUT are {left}"
    if trial.writable and _read(out / "failure.json").get("reason") != trial.reason.label:
        yield f"failure.json says {_read(out / 'failure.json')}"


def _made(
    done: RunResult, trial: Trial, root: Root, out: Path, manifest: Mapping[str, Any]
) -> Iterator[str]:
    if done.status or not manifest:
        yield f"status {done.status}: {done.stderr.strip().splitlines()[-2:]}"
        return
    kernel, evidence = manifest["kernel"], manifest["evidence"]
    if (kernel["os"], kernel["release"], kernel["running"]) != (root.host.os, root.release, False):
        yield f"the manifest is of {kernel}"
    if evidence["kind"] != trial.evidence:
        yield f"made from {evidence}, not {trial.evidence}"
    if manifest["verified"]["how"] != ("names" if trial.btf else "unverified"):
        yield f"verified is {manifest['verified']}"
    if "compat" not in manifest["verified"]["paths"]:
        yield f"compat is not among {manifest['verified']['paths']}"
    listed = {each["path"]: each["sha256"] for each in manifest["objects"]}
    there = {
        str(path.relative_to(out)): file_sha256(path) for path in out.glob("objects/*/*.bpf.o")
    }
    if not there or there != listed:
        yield f"objects: {sorted(there)} are there, {sorted(listed)} listed"
    bill = _read(out / "sbom.spdx.json")
    if bill.get("spdxVersion") != "SPDX-2.3" or not bill.get("packages"):
        yield "no bill of materials"
    wanted = "--no-image" not in trial.arguments
    yield from _archive(manifest, root, out) if wanted else _packages(manifest, out)


def _packages(manifest: Mapping[str, Any], out: Path) -> Iterator[str]:
    for each in manifest["packages"]:
        if file_sha256(out / each["path"]) != each["sha256"]:
            yield f"{each['path']} is another file than the manifest's"
    if not manifest["packages"]:
        yield "no package"


def _archive(manifest: Mapping[str, Any], root: Root, out: Path) -> Iterator[str]:
    image = manifest.get("image") or {}
    named = f"{HUB}/kmesh:{TAG}-{root.host.os}-{root.release}".replace("+", "_")
    if image.get("reference") != named:
        yield f"the image is {image.get('reference')}, not {named}"
    archive = out / image.get("archive", "none")
    if not archive.is_file() or file_sha256(archive) != image["sha256"]:
        yield f"no archive {archive.name}, or another than the manifest's"


def starts(engine: Engine, told: Told, out: Path) -> list[str]:
    """Load the image that was made, and start it; what was wrong with that. It is removed again."""
    image = told.manifest["image"]
    with (out / image["archive"]).open("rb") as stream:
        engine.load(stream, what=image["reference"])
    try:
        found = engine.find(image["reference"])
        if found is None or found.id != image["id"]:
            return [f"loaded as {found}, not {image}"]
        kernel = told.manifest["kernel"]
        labels = (found.labels.get("net.kmesh.os"), found.labels.get("net.kmesh.kernel"))
        complaints = [] if labels == (kernel["os"], kernel["release"]) else [f"labels: {labels}"]
        done = engine.run(found.id, ["version"], options=RunOptions(), what="kmesh version")
        return complaints + ([done.stderr] if done.status else [])
    finally:
        engine.remove(image["reference"])


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}
