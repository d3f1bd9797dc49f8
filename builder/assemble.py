# SPDX-License-Identifier: Apache-2.0
"""An image before it is built: its base made ready, its parts, its Dockerfile, and the key of all that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from builder import labels as image_labels
from builder.bases import Choice, choose
from builder.cache import content_key
from builder.context import TREE, Part, code_archive, describe_parts, write_context
from builder.engine import Engine
from builder.lock import Pin, closure, parse_lock
from builder.objects import ObjectSet
from builder.prepared import Bases, PreparedBase
from builder.progress import Progress
from builder.prune import needed
from builder.recipes import Recipe
from builder.registry import answers, registry_of
from builder.request import Request
from builder.templates import ArchiveView, render
from builder.wheels import PythonPackage, Site, site

_BUILD_REQUIREMENTS = ("docker", "jinja2", "spdx-tools")
_KMESH_LICENSE = "Apache-2.0"


@dataclass(frozen=True)
class Prepared:
    """An image before it is built: all that has a say in it.

    Attributes:
        digests: for each part (a layer in the end) the SHA-256 of its archive.
        python: the Python packages in it.
        key: covers the base, every part and every label.
        context: the archive for the engine.
    """

    image: Recipe
    base: PreparedBase
    digests: Mapping[str, str]
    python: tuple[PythonPackage, ...]
    dockerfile: str
    key: str
    context: Path


class Assembler:
    """Assembles images for one request.

    Args:
        request: what is asked for.
        engine: where bases are made ready.
        objects: what was compiled.
        progress: told what happens.
    """

    def __init__(
        self, request: Request, engine: Engine, objects: ObjectSet, progress: Progress
    ) -> None:
        self._request, self._engine = request, engine
        self._objects, self._progress = objects, progress
        self._bases = Bases(engine, request.cache, mirror=request.mirror, say=progress.say)
        self._reachable = cache(answers)

    def _choose(self, image: Recipe) -> Choice:
        request, wish = self._request, self._request.wish(image)
        reference = wish.reference or image.base.reference
        if request.bootstrap and not wish.reference:
            return choose(image.base, wish, reachable=False)
        present = self._engine.find(reference) is not None
        reachable = present or self._reachable(registry_of(reference))
        return choose(image.base, wish, reachable=reachable, present=present)

    def assemble(self, image: Recipe, place: Path) -> Prepared:
        """Choose an image's base, make it ready, and put its context together.

        Args:
            image: the recipe.
            place: a directory for the context.

        Raises:
            KmeshError: the base or something else that goes in cannot be had.
        """
        choice = self._choose(image)
        self._progress.step(image.name, "base", f"{choice.label}: {choice.reason}")
        base = self._bases.prepare(image, choice, self._request.wish(image))
        for warning in (base.note, base.choice.reason if base.choice.substitute else ""):
            if warning:
                self._progress.warn(f"{image.repository}: {warning}")
        self._progress.step(image.name, "context", "putting together what goes in")
        return self._context(image, base, place)

    def _context(self, image: Recipe, base: PreparedBase, place: Path) -> Prepared:
        checkout = self._request.checkout
        sites = self._sites(image)
        code = place / "kmesh.tar"
        code_archive(code, checkout, image, self._objects)
        parts = (*(Part(name, item.archive) for name, item in sites), Part("kmesh", code))
        finish = (checkout.root / "images" / "finish.py").read_bytes()
        made = image_labels.labels(image, checkout, base.choice, base=base.digest)
        dockerfile = self._dockerfile(image, base, parts, made)
        digests = describe_parts(parts)
        key = content_key(
            base.key, dockerfile, finish, str(checkout.epoch), repr(sorted(digests.items()))
        )
        context = place / "context.tar"
        write_context(context, dockerfile=dockerfile, finish=finish, parts=parts)
        own = PythonPackage("kmesh", checkout.version, _KMESH_LICENSE)
        python = (own, *(package for _, item in sites for package in item.packages))
        return Prepared(image, base, digests, python, dockerfile, key, context)

    def _dockerfile(
        self, image: Recipe, base: PreparedBase, parts: Sequence[Part], made: dict[str, str]
    ) -> str:
        checkout = self._request.checkout
        archives = [ArchiveView(part.stage, f"{part.stage}.tar") for part in parts]
        environment = {
            "KMESH_COMMIT": checkout.revision,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
        }
        if image.builder:
            environment["KMESH_CHECKOUT"] = f"/{TREE}"
            environment["SOURCE_DATE_EPOCH"] = str(checkout.epoch)
        return render(
            checkout.root / "images",
            image,
            base=base.view,
            archives=archives,
            labels=made,
            environment=environment,
        )

    def _sites(self, image: Recipe) -> list[tuple[str, Site]]:
        directory = self._request.checkout.root / "requirements"
        runtime = needed(parse_lock((directory / "runtime.lock").read_text()))
        layers: list[tuple[str, list[Pin]]] = [("python", runtime)]
        if image.builder:
            more = parse_lock((directory / "dev.lock").read_text())
            there = [pin.name for pin in runtime]
            layers.append(("pipeline", closure(more, _BUILD_REQUIREMENTS, without=there)))
        return [
            (name, site(self._request.cache, pins, say=self._progress.say)) for name, pins in layers
        ]
