# SPDX-License-Identifier: Apache-2.0
"""Bases made ready in an engine: pulled and checked, or made from packages and loaded."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.archive import LayerFile, image_id, write_image
from builder.bases import Choice, Kind, Wish, choose
from builder.cache import content_key
from builder.engine import Engine, EngineError, ImageFacts
from builder.normalise import BaseLayer
from builder.recipes import Recipe
from builder.resolve import resolve, specs
from builder.rootfs import debian, openeuler, osrelease
from builder.rootfs.dnf import Repository
from builder.templates import BaseView
from runtime.errors import KmeshError

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # uname(2) → OCI
ROOT_LABEL = "net.kmesh.root"
_CREATED = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class PreparedBase:
    """A base that the engine has.

    Attributes:
        choice: how it was decided on; its reason says so when a pull failed.
        view: what templates see.
        layers: its layers, from the lowest up.
        digest: what identifies it: a registry's digest, or the id of a base that was made.
        network: the network that RUN steps need, None for the engine's default.
        command: how it was made, or ().
        inputs: what it was made of, for the provenance.
        note: what the user should know, or "".
    """

    choice: Choice
    view: BaseView
    layers: tuple[BaseLayer, ...]
    digest: str
    network: str | None
    command: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    note: str = ""

    @property
    def key(self) -> str:
        """What the images' content depends on."""
        return content_key(self.digest, self.view.installer, *self.view.packages, *self.inputs)


class Bases:
    """Makes bases ready, each once.

    Args:
        engine: where they are to be.
        cache: where roots are kept.
        mirror: where Debian packages come from, None for the host's own sources.
        say: told what takes long.
    """

    def __init__(
        self, engine: Engine, cache: Path, *, mirror: str | None, say: Callable[[str], None]
    ) -> None:
        self._engine, self._cache, self._mirror, self._say = engine, cache, mirror, say
        self._debian: debian.DebianRoot | None = None

    def prepare(self, image: Recipe, choice: Choice, wish: Wish) -> PreparedBase:
        """Make the base of an image ready.

        Raises:
            KmeshError: it cannot be had, or is not what it says.
        """
        if choice.kind is Kind.IMAGE:
            return self._pulled(image, choice, wish)
        if choice.kind is Kind.OPENEULER_ARCHIVE:
            root = openeuler.from_archive(self._cache, Path(choice.source))
            return self._openeuler(choice, root)
        if choice.kind is Kind.OPENEULER_REPOSITORY:
            repository = Repository(choice.source, wish.key)
            root = openeuler.from_repository(self._cache, repository, say=self._say)
            return self._openeuler(choice, root)
        return self._debian_root(image, choice)

    def _pulled(self, image: Recipe, choice: Choice, wish: Wish) -> PreparedBase:
        try:
            facts = self._engine.find(choice.source) or self._pull(choice.source)
        except EngineError as error:
            if wish.reference:
                raise
            made = choose(image.base, wish, reachable=False)
            reason = f"{made.reason} (pulling {choice.source} failed: {error})"
            return self.prepare(image, replace(made, reason=reason), wish)
        release = (self._engine.read_file(facts.id, f"/{path}") for path in osrelease.PATHS)
        found = next((data for data in release if data is not None), None)
        osrelease.check(found, wanted=choice.os_id, what=f"base {choice.source}")
        return self._of_image(image, choice, facts)

    def _of_image(self, image: Recipe, choice: Choice, facts: ImageFacts) -> PreparedBase:
        installer = choice.wanted.installer
        packages = image.packages.get(installer)
        if packages is None:
            raise KmeshError(f"{image.name}: no packages are known for {choice.wanted.name}")
        network = "host" if self._engine.private else None
        self._say(f"asking {installer} of {choice.source} for {', '.join(packages)}")
        resolved = resolve(self._engine, facts.id, installer, packages, network=network)
        digest = next(iter(facts.digests), facts.id).rpartition("@")[2]
        layers = tuple(BaseLayer(diff_id, "base") for diff_id in facts.layers)
        view = BaseView(facts.id, installer, specs(packages, resolved))
        inputs = (f"{choice.source} {digest}", *(package.input for package in resolved))
        return PreparedBase(choice, view, layers, digest, network, inputs=inputs)

    def _pull(self, reference: str) -> ImageFacts:
        self._say(f"pulling {reference}")
        return self._engine.pull(reference)

    def _debian_root(self, image: Recipe, choice: Choice) -> PreparedBase:
        if self._debian is None:
            self._debian = debian.root(self._cache, mirror=self._mirror, say=self._say)
        root = self._debian
        names = ("Debian base", "toolchain")
        layers = [
            LayerFile(path, f"sha256:{digest}")
            for path, digest in zip(root.layers, root.digests, strict=True)
        ]
        made = self._load(choice, layers[:1], names[:1])
        if image.toolchain:
            stage = made.view.reference
            made = self._load(choice, layers, names)
            made = replace(made, view=replace(made.view, stage=stage))
        return replace(made, command=root.command, inputs=root.inputs, note=root.note)

    def _openeuler(self, choice: Choice, root: openeuler.OpenEulerRoot) -> PreparedBase:
        made = self._load(
            choice,
            [LayerFile(root.layer, f"sha256:{root.digest}")],
            [root.release.name or "openEuler base"],
        )
        return replace(made, command=root.command, inputs=root.inputs, note=root.note)

    def _load(
        self, choice: Choice, layers: Sequence[LayerFile], names: Sequence[str]
    ) -> PreparedBase:
        config = _base_config(names)
        wanted = image_id(config, layers)
        if self._engine.find(wanted) is None:
            self._say(f"loading {' and '.join(names)} into the engine")
            with tempfile.NamedTemporaryFile(dir=self._cache, prefix=".base-") as stream:
                write_image(stream, config, layers)
                stream.seek(0)
                wanted = self._engine.load(stream, what="the base")
        based = tuple(
            BaseLayer(layer.diff_id, name, layer.path)
            for layer, name in zip(layers, names, strict=True)
        )
        return PreparedBase(choice, BaseView(wanted, "", ()), based, wanted, "none")


def _base_config(names: Sequence[str]) -> dict[str, Any]:
    machine = platform.machine()
    return {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": _CREATED,
        "config": {
            "Labels": {ROOT_LABEL: "made by kmesh-build"},
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "history": [{"created": _CREATED, "created_by": name} for name in names],
    }
