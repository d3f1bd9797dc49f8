# SPDX-License-Identifier: Apache-2.0
"""What a build would do, and why: told without an engine, so as far as that can be known without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builder.bases import Choice, Kind, Wish, choose
from builder.checkout import Checkout
from builder.recipes import Recipe
from builder.registry import answers, registry_of


@dataclass(frozen=True)
class ImagePlan:
    """What would be done for one image.

    Attributes:
        mirror: where Debian packages come from, None for the host's own sources.
    """

    image: Recipe
    reference: str
    choice: Choice
    mirror: str | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps, in order."""
        kind = self.choice.kind
        base = {
            Kind.IMAGE: f"pull {self.choice.source}, check that it is {self.choice.os_id}",
            Kind.DEBIAN_ROOT: f"bootstrap Debian 12 from {self.mirror or 'the sources of apt here'} "
            "with mmdebstrap, once for all images",
            Kind.OPENEULER_ARCHIVE: f"take the root {self.choice.source}, check that it is openEuler",
            Kind.OPENEULER_REPOSITORY: f"install openEuler with dnf from {self.choice.source}",
        }[kind]
        packages = self.image.packages.get(self.choice.wanted.installer, ())
        install = f"install {', '.join(packages)}" if kind is Kind.IMAGE else ""
        found = (
            base,
            install,
            f"add Kmesh, its locked Python packages, {self.image.carries}",
            "normalise to the commit's date, load",
            "smoke-run, then write the bill of materials and the provenance",
        )
        return tuple(step for step in found if step)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "image": self.image.name,
            "reference": self.reference,
            "carries": self.image.carries,
            "base": self.choice.label,
            "wanted_base": self.choice.wanted.name,
            "substitute": self.choice.substitute,
            "reason": self.choice.reason,
            "steps": list(self.steps),
        }


def make_plan(
    images: Sequence[Recipe],
    wishes: dict[str, Wish],
    *,
    hub: str,
    tag: str,
    bootstrap: bool,
    mirror: str | None = None,
) -> list[ImagePlan]:
    """Decide on all bases; a registry is asked once, and given three seconds.

    Raises:
        KmeshError: the user named a base that cannot be had.
    """
    known: dict[str, bool] = {}
    plans = []
    for image in images:
        wish = wishes.get(image.name, Wish())
        host = registry_of(wish.reference or image.base.reference)
        if host not in known and (wish.reference or not bootstrap):
            known[host] = answers(host)
        choice = choose(image.base, wish, reachable=known.get(host, False))
        reference = f"{hub.rstrip('/')}/{image.repository}:{tag}"
        plans.append(ImagePlan(image, reference, choice, mirror))
    return plans


def to_json(checkout: Checkout, plans: Sequence[ImagePlan], engine: str) -> dict[str, Any]:
    """A plan as JSON data."""
    return {
        "schema_version": 1,
        "version": checkout.version,
        "revision": checkout.revision,
        "created": checkout.created,
        "engine": engine,
        "images": [plan.to_json() for plan in plans],
    }
