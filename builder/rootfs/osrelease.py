# SPDX-License-Identifier: Apache-2.0
"""What a root says it is (os-release(5)), and whether that is what it was taken for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from runtime.errors import KmeshError

PATHS = ("etc/os-release", "usr/lib/os-release")


@dataclass(frozen=True)
class OsRelease:
    """The fields that matter here."""

    id: str
    version: str
    name: str


def parse(text: str) -> OsRelease:
    """Parse os-release(5); fields that are not there are empty."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            fields[key] = "".join(shlex.split(value))
    return OsRelease(
        fields.get("ID", ""), fields.get("VERSION_ID", ""), fields.get("PRETTY_NAME", "")
    )


def check(data: bytes | None, *, wanted: str, what: str) -> OsRelease:
    """Refuse a root that is not what it was taken for.

    Args:
        data: its os-release, None where it has none.
        wanted: the ID it must have, in any case of letters, such as "openEuler".
        what: how to name the root in the error.

    Raises:
        KmeshError: there is no os-release or its ID is another.
    """
    if data is None:
        hint = "give a root file system: an archive with etc/os-release in it, or a base image"
        raise KmeshError(f"{what} has no os-release: it is not a root file system", hint=hint)
    release = parse(data.decode(errors="replace"))
    if release.id.lower() != wanted.lower():
        said = release.name or release.id or "nothing"
        hint = f"give a base of {wanted}, or leave it away"
        raise KmeshError(
            f"{what} is not what it says: {wanted} was wanted, it is {said}", hint=hint
        )
    return release
