# SPDX-License-Identifier: Apache-2.0
"""Lock files of Python packages, as `uv pip compile` writes them: what is pinned, and what asked for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from runtime.errors import KmeshError

_HEAD = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)")
_VIA = re.compile(r"^\s+#\s+(?:via\s+)?(?P<name>[A-Za-z0-9._-]+)(?:\s|$)")


@dataclass(frozen=True)
class Pin:
    """One package of a lock file.

    Attributes:
        via: the packages that require it.
        text: its lines, with the hashes.
    """

    name: str
    version: str
    via: frozenset[str]
    text: str

    def without(self, askers: frozenset[str]) -> Pin:
        """The same, as if some of the packages did not require it."""
        return replace(self, via=self.via - askers)


def parse_lock(text: str) -> dict[str, Pin]:
    """Parse a lock file: name → pin.

    Raises:
        KmeshError: a pin has no hash.
    """
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if _HEAD.match(line):
            blocks.append([])
        if blocks:
            blocks[-1].append(line)
    pins = (_pin(block) for block in blocks)
    return {pin.name: pin for pin in pins}


def _pin(lines: list[str]) -> Pin:
    head = _HEAD.match(lines[0])
    assert head
    if not any("--hash=" in line for line in lines):
        hint = "run `make lock`"
        raise KmeshError(f"{head['name']} is locked without a hash", hint=hint)
    via = (_VIA.match(line) for line in lines if "--hash=" not in line)
    names = frozenset(found["name"] for found in via if found and found["name"] != "via")
    return Pin(head["name"], head["version"], names, "\n".join(lines) + "\n")


def closure(
    pins: dict[str, Pin], wanted: Iterable[str], *, without: Iterable[str] = ()
) -> list[Pin]:
    """The packages wanted and what they require, less those that are there already; sorted.

    Raises:
        KmeshError: one of them is not locked.
    """
    found = set(wanted)
    if missing := found - pins.keys():
        hint = "run `make lock`"
        raise KmeshError(f"not in the lock file: {', '.join(sorted(missing))}", hint=hint)
    while more := {name for name, pin in pins.items() if pin.via & found} - found:
        found |= more
    return [pins[name] for name in sorted(found - set(without))]
