# SPDX-License-Identifier: Apache-2.0
"""What lies in OUT in the end: objects, manifest.json, bill of materials, image archive, packages."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from builder.cache import file_sha256
from builder.checkout import SOURCE, Checkout
from builder.engine import Engine, EngineError
from builder.host.deb import write_deb
from builder.host.evidence import Target
from builder.host.image import Image, reference, write_host_image
from builder.host.make import Made
from builder.host.package import PackageFacts
from builder.host.reasons import HostError, Reason
from builder.host.rpm import write_rpm
from builder.rootfs.dpkg import Package
from builder.sbom import Contents, SystemPackage, write_sbom
from builder.wheels import PythonPackage
from runtime.objects.locate import FOR_KERNELS

OBJECTS, MANIFEST, SBOM, FAILURE = "objects", "manifest.json", "sbom.spdx.json", "failure.json"
SOCKET = Path("/var/run/docker.sock")
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be delivered, and under which names."""

    hub: str
    tag: str
    image: bool = True
    deb: bool = False
    rpm: bool = False


def require_writable(out: Path) -> None:
    """Find out at once that OUT cannot be written to.

    Raises:
        HostError: it cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".kmesh-{os.getpid()}"
        probe.touch()
        probe.unlink()
        for name in (
            FAILURE,
            MANIFEST,
        ):  # of an earlier run: what is there in the end is of this one
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise HostError(
            Reason.OUT_NOT_WRITABLE,
            f"cannot write to {out}: {error.strerror}",
            hint="mount a directory there that can be written: docker run -v $PWD/out:/out …",
        ) from error


def deliver(
    made: Made,
    target: Target,
    *,
    out: Path,
    scratch: Path,
    checkout: Checkout,
    wanted: Wanted,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write everything; returns the manifest.

    Raises:
        HostError: something that was wanted could not be made.
    """
    objects = out / OBJECTS
    shutil.rmtree(objects, ignore_errors=True)
    shutil.copytree(made.directory, objects)
    manifest = describe(made, target, checkout=checkout)
    image = _image(manifest, target, out, scratch, checkout, wanted) if wanted.image else None
    if image:
        say(f"wrote {image.archive.name}: {image.reference}")
        manifest["image"] = {
            "reference": image.reference,
            "id": image.id,
            "archive": image.archive.name,
            "sha256": file_sha256(image.archive),
            "loaded_by": _load(image, say=say),
        }
    manifest["packages"] = _packages(made, target, out, checkout, wanted)
    _sbom(made, image, out, checkout, target)
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def describe(made: Made, target: Target, *, checkout: Checkout) -> dict[str, Any]:
    """The manifest: for which kernel, from what, by which compiler, and what the kernel said."""
    compiled = json.loads((made.directory / MANIFEST).read_text())
    return {
        "schema": _SCHEMA,
        "kmesh": {"version": checkout.version, "revision": checkout.revision},
        "kernel": {
            "release": target.release,
            "machine": target.machine,
            "os": target.os,
            "running": target.running,
            "btf_sha256": file_sha256(target.btf) if target.btf else None,
            "config_sha256": file_sha256(target.config) if target.config else None,
        },
        "compiler": compiled["compiler"],
        "flags": compiled["flags"],
        "evidence": {
            "kind": str(made.evidence.kind),
            "where": made.evidence.where,
            "renumbered_helpers": made.renumbered,
            "tried_before": list(made.tried),
        },
        "verified": {
            "how": made.judgement.how,
            "paths": list(made.judgement.paths),
            "not": list(made.judgement.reasons),
        },
        "objects": [
            {"path": f"{OBJECTS}/{item.name}", "sha256": item.info.sha256, "size": item.info.size}
            for item in made.objects
        ],
    }


def _image(
    manifest: dict[str, Any],
    target: Target,
    out: Path,
    scratch: Path,
    checkout: Checkout,
    wanted: Wanted,
) -> Image:
    name = reference(target, hub=wanted.hub, tag=wanted.tag)
    labels = {
        "org.opencontainers.image.created": checkout.created,
        "org.opencontainers.image.licenses": "Apache-2.0 AND GPL-2.0-only",
        "org.opencontainers.image.revision": checkout.revision,
        "org.opencontainers.image.source": SOURCE,
        "org.opencontainers.image.title": "Kmesh for one kernel",
        "org.opencontainers.image.version": checkout.version,
        "net.kmesh.image": "host",
        "net.kmesh.kernel": target.release,
        "net.kmesh.os": target.os,
        "net.kmesh.evidence": manifest["evidence"]["kind"],
        "net.kmesh.verified": manifest["verified"]["how"],
    }
    return write_host_image(
        out / f"{name.rpartition('/')[2].replace(':', '-')}.tar",
        target,
        name=name,
        objects=out / OBJECTS,
        labels=labels,
        scratch=scratch,
        checkout=checkout,
    )


def _load(image: Image, *, say: Callable[[str], None]) -> str | None:
    """Load the image where the engine's socket is mounted."""
    if not SOCKET.is_socket():
        return None
    try:
        engine = Engine.connect(f"unix://{SOCKET}")
        with image.archive.open("rb") as stream:
            engine.load(stream, what=image.reference)
    except EngineError as error:
        raise HostError(
            Reason.ENGINE_REFUSED,
            str(error),
            hint=f"load it by hand: docker load -i {image.archive.name}",
        ) from error
    say(f"loaded by {engine.description}")
    return engine.description


def _packages(
    made: Made, target: Target, out: Path, checkout: Checkout, wanted: Wanted
) -> list[dict[str, str]]:
    facts = PackageFacts.of(
        release=target.release, machine=target.machine, version=checkout.version
    )
    place = str(FOR_KERNELS / target.release).lstrip("/")
    found = sorted(path for path in made.directory.rglob("*") if path.is_file())
    files = {f"{place}/{path.relative_to(made.directory)}": path.read_bytes() for path in found}
    writers = [write for write, on in ((write_deb, wanted.deb), (write_rpm, wanted.rpm)) if on]
    paths = [write(out, facts, files, epoch=checkout.epoch) for write in writers]
    return [{"path": path.name, "sha256": file_sha256(path)} for path in paths]


def _sbom(made: Made, image: Image | None, out: Path, checkout: Checkout, target: Target) -> None:
    system = _system(image.packages) if image else []
    write_sbom(
        out / SBOM,
        name=f"kmesh-{target.os}-{target.release}",
        image_id=image.id if image else f"sha256:{made.objects[0].info.sha256}",
        checkout=checkout,
        contents=Contents(system, _python() if image else [], made.objects),
    )


def _system(packages: Sequence[Package]) -> list[SystemPackage]:
    return [
        SystemPackage(item.name, item.version, item.architecture, "deb", "debian")
        for item in packages
    ]


def _python() -> list[PythonPackage]:
    found = {
        item.name: PythonPackage(
            item.name, item.version, str(item.metadata["License-Expression"] or "")
        )
        for item in distributions()
    }
    return [found[name] for name in sorted(found)]


def write_failure(out: Path, error: HostError) -> None:
    """Leave word in OUT too, for what reads no logs."""
    if out.is_dir() and os.access(out, os.W_OK):
        told = {"reason": error.reason.label, "message": str(error), "hint": error.hint}
        (out / FAILURE).write_text(json.dumps(told, indent=2) + "\n")
