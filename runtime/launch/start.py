# SPDX-License-Identifier: Apache-2.0
"""Starting the best path that starts: one that fails, in spite of its verdict, gives way to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from runtime import log
from runtime.errors import KmeshError

_Path = TypeVar("_Path")
_log = log.get("launch")


@dataclass(frozen=True, slots=True)
class Demotion:
    """A path that failed to start, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Started(Generic[_Path]):
    name: str
    path: _Path
    demotions: tuple[Demotion, ...]


def start_best(names: Sequence[str], open_path: Callable[[str], _Path]) -> Started[_Path]:
    """Start the first of several paths that starts.

    Args:
        names: the paths to try, best first.
        open_path: starts a path by its name, leaving nothing behind where that fails.

    Raises:
        KmeshError: none starts; the message has the reason of each.
    """
    failures: list[Demotion] = []
    hint = None
    for name in names:
        if failures:
            _log.error("DEMOTED: starting the %s path in its place", name)
        try:
            path = open_path(name)
        except KmeshError as error:
            _log.error("the %s path failed to start: %s", name, error)
            failures.append(Demotion(name, str(error)))
            hint = error.hint
        else:
            return Started(name, path, tuple(failures))
    told = "; ".join(f"{each.path}: {each.reason}" for each in failures)
    raise KmeshError(f"no path started ({told})", hint=hint or "`kmesh probe` tells more")
