# SPDX-License-Identifier: Apache-2.0
"""Which paths to start, in which order: a pure function of what is wanted and what can be."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runtime.errors import KmeshError

PATHS = ("enhanced", "compat")  # best first
_REASON = re.compile(r"((?:[a-z]+(?:, [a-z]+)*: )?)(\S+)( is .*)", re.DOTALL)
MODES = ("auto", *PATHS)


class ImpossibleError(KmeshError):
    """No path that is wanted can run here; the reasons are the prober's."""


def candidates(wanted: str, *, mode: str, reasons: Sequence[str]) -> tuple[str, ...]:
    """The paths to try, best first. What the user forced has no second.

    Args:
        wanted: "auto", or the path that the user insists on.
        mode: the best path that can run, or "none", as the prober decided.
        reasons: why it is not a better one.

    Raises:
        ImpossibleError: nothing can run, or not what is insisted on.
    """
    possible = PATHS[PATHS.index(mode) :] if mode in PATHS else ()
    because = ": " + "; ".join(_together(reasons)) if reasons else ""
    if not possible:
        raise ImpossibleError(
            f"no path can run on this kernel{because}",
            hint="`kmesh probe` tells what is missing and what would mend it",
        )
    if wanted == "auto":
        return possible
    if wanted not in possible:
        raise ImpossibleError(
            f"the {wanted} path was asked for (--mode {wanted}) and cannot run here{because}",
            hint=f"`kmesh probe` tells more; --mode auto would run the {mode} path",
        )
    return (wanted,)


def _together(reasons: Sequence[str]) -> list[str]:
    """Reasons that differ in their capability alone, as one: nine objects fail for the same cause."""
    alike: dict[str, list[str]] = {}
    for reason in reasons:
        found = _REASON.fullmatch(reason)
        alike.setdefault(f"{found[1]}{{}}{found[3]}" if found else reason, []).append(
            found[2] if found else ""
        )
    return [_as_one(pattern, names) for pattern, names in alike.items()]


def _as_one(pattern: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return pattern.replace("{} is ", f"{names[0]} is ", 1)
    return pattern.replace("{} is ", f"{names[0]} and {len(names) - 1} more are ", 1)
