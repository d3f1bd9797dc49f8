# SPDX-License-Identifier: Apache-2.0
"""What an image is made of, and the register of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

from builder.bases import Base
from runtime.errors import KmeshError

_MODULES = ("compile", "enhanced", "generic")


@dataclass(frozen=True)
class Recipe:
    """One image.

    Attributes:
        name: "enhanced", "generic" or "compile".
        repository: what it is called below the hub.
        base: the distribution that it is meant for.
        toolchain: whether clang, llvm-strip, headers and bcc are in it.
        sources: whether the BPF sources are in it.
        builder: whether the image pipeline itself is in it.
        packages: for an installer, the packages that a pulled base lacks.
        entrypoint: the command it runs.
        carries: what it is made of, for people.
    """

    name: str
    repository: str
    title: str
    description: str
    base: Base
    entrypoint: str
    carries: str
    toolchain: bool = False
    sources: bool = False
    builder: bool = False
    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether it runs a path, and not only makes what others run."""
        return self.entrypoint == "kmesh"


_REGISTER: dict[str, Recipe] = {}


def register(made: Recipe) -> Recipe:
    """Put a recipe into the register."""
    _REGISTER[made.name] = made
    return made


def recipes() -> tuple[Recipe, ...]:
    """All images, the one that users start with first."""
    for module in _MODULES:
        import_module(f"builder.recipes.{module}")
    order = {"generic": 0, "enhanced": 1, "compile": 2}
    return tuple(sorted(_REGISTER.values(), key=lambda made: order[made.name]))


def recipe(name: str) -> Recipe:
    """The recipe of one image.

    Raises:
        KmeshError: there is no such image.
    """
    for made in recipes():
        if made.name == name:
            return made
    names = ", ".join(made.name for made in recipes())
    raise KmeshError(f"no image {name!r}", hint=f"there are: {names}")
