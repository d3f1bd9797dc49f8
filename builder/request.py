# SPDX-License-Identifier: Apache-2.0
"""What a user asks of a build, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from builder.bases import Wish
from builder.checkout import Checkout
from builder.kernels import KernelVerdict
from builder.recipes import Recipe


@dataclass(frozen=True)
class Request:
    """A build.

    Attributes:
        cache: the cache's directory.
        images: the recipes to build.
        hub: what stands before the images' names.
        wishes: for an image's name, what the user said about its base.
        mirror: where Debian packages come from, None for the host's own sources.
        bootstrap: make the bases from packages, whether a registry answers or not.
        rebuild: build again what is there already, every step of it.
        load: try the objects on this kernel.
        keep_engine: leave a private engine running.
    """

    checkout: Checkout
    cache: Path
    images: Sequence[Recipe]
    tag: str
    hub: str
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    mirror: str | None = None
    bootstrap: bool = False
    rebuild: bool = False
    load: bool = True
    keep_engine: bool = False

    @property
    def output(self) -> Path:
        """Where bills of materials and provenance go."""
        return self.checkout.root / "build" / "images"

    def reference(self, image: Recipe) -> str:
        """The name that an image gets."""
        return f"{self.hub.rstrip('/')}/{image.repository}:{self.tag}"

    def wish(self, image: Recipe) -> Wish:
        """What the user said about the base of an image."""
        return self.wishes.get(image.name, Wish())


@dataclass(frozen=True)
class LayerSize:
    """A layer: its name and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class ImageResult:
    """An image that is there.

    Attributes:
        state: "built", or "unchanged" where all was there already.
        substitute: it stands on another distribution than it is meant for.
        reason: why on this base.
    """

    image: Recipe
    reference: str
    id: str
    size: int
    layers: tuple[LayerSize, ...]
    base: str
    substitute: bool
    reason: str
    objects: int
    seconds: float
    state: str
    kernels: tuple[KernelVerdict, ...]
