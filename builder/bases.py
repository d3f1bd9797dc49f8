# SPDX-License-Identifier: Apache-2.0
"""What the images stand on, and how that is decided: pulled where it can be, made where it cannot.

The decision is a pure function of what was asked for and what was found, so that `kmesh-build plan`
can tell it without an engine.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import KmeshError


@dataclass(frozen=True)
class Base:
    """A distribution that an image stands on.

    Attributes:
        os_id: the ID in its os-release.
        reference: the image to pull, by digest where one is known.
        installer: the command that installs packages there ("apt-get" or "dnf").
        kernel_mark: what its kernels' releases have in them and no other's, "" where nothing is.
    """

    name: str
    os_id: str
    reference: str
    installer: str
    kernel_mark: str = ""

    @property
    def pinned(self) -> bool:
        """Whether the reference names one image for ever."""
        return "@sha256:" in self.reference


DEBIAN = Base(
    name="Debian 12",
    os_id="debian",
    # bookworm-20251229-slim, all architectures
    reference="debian:bookworm-slim"
    "@sha256:d5d3f9c23164ea16f31852f95bd5959aad1c5e854332fe00f7b3a20fcc9f635c",
    installer="apt-get",
)
OPENEULER = Base(
    name="openEuler 24.03",
    os_id="openEuler",
    reference="openeuler/openeuler:24.03-lts",
    installer="dnf",
    kernel_mark=".oe",
)


class Kind(enum.StrEnum):
    """Where a base comes from."""

    IMAGE = "image"
    DEBIAN_ROOT = "debian-root"
    OPENEULER_ARCHIVE = "openeuler-archive"
    OPENEULER_REPOSITORY = "openeuler-repository"


@dataclass(frozen=True)
class Wish:
    """What the user said about the base of one image; None: nothing.

    Attributes:
        reference: an image to pull.
        archive: a root archive (openEuler only).
        repository: the base URI of a package repository (openEuler only).
        key: the file of public keys that packages of the repository must be signed with.
    """

    reference: str | None = None
    archive: Path | None = None
    repository: str | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Choice:
    """A base that was decided on.

    Attributes:
        wanted: the distribution that the image is meant for.
        kind: where it comes from.
        source: the reference, archive or repository, or "" for a root made from packages.
        reason: why this and not another, for people.
        substitute: it is another distribution than the one wanted.
    """

    wanted: Base
    kind: Kind
    source: str
    reason: str
    substitute: bool = False

    @property
    def label(self) -> str:
        """A short name for labels and tables."""
        if self.kind is Kind.IMAGE:
            return self.source
        made = "openEuler" if self.kind is not Kind.DEBIAN_ROOT else "Debian 12"
        how = {"openeuler-archive": "root archive", "openeuler-repository": "dnf"}
        return f"{made} ({how.get(self.kind, 'mmdebstrap')})"

    @property
    def os_id(self) -> str:
        """The ID that its os-release must have."""
        return DEBIAN.os_id if self.kind is Kind.DEBIAN_ROOT else self.wanted.os_id


def choose(base: Base, wish: Wish, *, reachable: bool, present: bool = False) -> Choice:
    """Decide where a base comes from.

    Args:
        base: the distribution that is wanted.
        wish: what the user asked for.
        reachable: whether the registry of its reference answers. What is not pinned is only pulled where
            the user names it: what a tag means changes.
        present: whether an engine has the reference already.

    Raises:
        KmeshError: the user named an image, and it cannot be had.
    """
    if wish.archive:
        return Choice(base, Kind.OPENEULER_ARCHIVE, str(wish.archive), "the root archive given")
    if wish.repository:
        return Choice(base, Kind.OPENEULER_REPOSITORY, wish.repository, "the repository given")
    reference = wish.reference or base.reference
    named = wish.reference is not None or base.pinned
    if named and present:
        return Choice(base, Kind.IMAGE, reference, "the engine has it")
    if named and reachable:
        return Choice(base, Kind.IMAGE, reference, "its registry answers")
    if wish.reference:
        hint = "leave the base away to have one made from packages"
        raise KmeshError(f"the registry of the base {reference} does not answer", hint=hint)
    if base.os_id == DEBIAN.os_id:
        reason = "no registry answers: made from Debian's packages"
        return Choice(base, Kind.DEBIAN_ROOT, "", reason)
    why = (
        "no registry answers" if base.pinned else f"no digest of {base.reference} is known to pull"
    )
    reason = (
        f"{why}, and no {base.os_id} repository, archive or image was given: "
        f"NOT {base.name}, but Debian 12"
    )
    return Choice(base, Kind.DEBIAN_ROOT, "", reason, substitute=True)
