# SPDX-License-Identifier: Apache-2.0
"""Beside the images: for each its bill of materials and its provenance, under build/images/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.checkout import Checkout
from builder.contents import system_packages
from builder.engine import Engine
from builder.objects import ObjectFile
from builder.provenance import BuildFacts, write_provenance
from builder.recipes import Recipe
from builder.sbom import Contents, write_sbom
from builder.wheels import PythonPackage

SBOM = "sbom.spdx.json"
PROVENANCE = "provenance.json"
DOCKERFILE = "Dockerfile"


@dataclass(frozen=True)
class Described:
    """An image and what is known about it."""

    image: Recipe
    facts: BuildFacts
    python: Sequence[PythonPackage]
    objects: Sequence[ObjectFile]


def describe(engine: Engine, directory: Path, checkout: Checkout, made: Described) -> None:
    """Write what is to be known about an image, where it does not stand there already.

    Raises:
        KmeshError: the bill of materials is not valid, or the image has no package database.
    """
    if _stands(directory, made.facts):
        return
    directory.mkdir(parents=True, exist_ok=True)
    system = system_packages(engine, made.facts.image_id)
    write_sbom(
        directory / SBOM,
        name=made.image.repository,
        image_id=made.facts.image_id,
        checkout=checkout,
        contents=Contents(system, made.python, made.objects),
    )
    (directory / DOCKERFILE).write_text(made.facts.dockerfile)
    write_provenance(directory / PROVENANCE, checkout, made.facts)


def _stands(directory: Path, facts: BuildFacts) -> bool:
    try:
        found = json.loads((directory / PROVENANCE).read_text())["subject"][0]
    except (OSError, ValueError, LookupError):
        return False
    same = found["digest"]["sha256"] == facts.image_id.removeprefix("sha256:")
    return same and found["name"] == facts.reference and (directory / SBOM).exists()
