# SPDX-License-Identifier: Apache-2.0
"""Names for finished images: all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from builder.engine import EngineError, ImageFacts
from runtime.errors import KmeshError


class Names(Protocol):
    """What naming needs of an engine."""

    def find(self, reference: str) -> ImageFacts | None: ...
    def tag(self, image: str, reference: str) -> None: ...
    def remove(self, image: str, *, keep_parents: bool = True) -> None: ...


def name_all(engine: Names, wanted: Mapping[str, str]) -> list[ImageFacts]:
    """Give images their names; when one cannot be given, those before it are taken back.

    Args:
        engine: where the images are.
        wanted: reference → image id.

    Returns:
        the images that lost a name to another.

    Raises:
        EngineError: a name could not be given; none has changed then.
        KmeshError: and some could not be taken back; it says which.
    """
    before = {reference: engine.find(reference) for reference in wanted}
    changed = [name for name, old in before.items() if old is None or old.id != wanted[name]]
    try:
        for reference in changed:
            engine.tag(wanted[reference], reference)
    except EngineError as error:
        if left := _take_back(engine, {reference: before[reference] for reference in changed}):
            hint = "run it again: what is finished is not built again"
            names = ", ".join(left)
            raise KmeshError(f"{error}; names that have changed: {names}", hint=hint) from error
        raise
    return [old for reference in changed if (old := before[reference])]


def _take_back(engine: Names, before: Mapping[str, ImageFacts | None]) -> list[str]:
    """Let names mean what they meant; returns those that do not, as far as the engine tells."""
    for reference, old in before.items():
        with suppress(EngineError):
            _restore(engine, reference, old)
    return [reference for reference, old in before.items() if not _is(engine, reference, old)]


def _restore(engine: Names, reference: str, old: ImageFacts | None) -> None:
    if old is not None:
        engine.tag(old.id, reference)
    elif engine.find(reference) is not None:
        engine.remove(reference)


def _is(engine: Names, reference: str, old: ImageFacts | None) -> bool:
    try:
        now = engine.find(reference)
    except EngineError:
        return False
    return (now and now.id) == (old and old.id)
