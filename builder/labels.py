# SPDX-License-Identifier: Apache-2.0
"""The labels of an image: OCI annotations, and what Kmesh says about itself."""

from __future__ import annotations

from builder.bases import Choice
from builder.checkout import SOURCE, Checkout
from builder.recipes import Recipe

INPUTS = "net.kmesh.inputs"
BASE = "net.kmesh.base"
SUBSTITUTE = "net.kmesh.base.substitute-for"


def labels(image: Recipe, checkout: Checkout, choice: Choice, *, base: str) -> dict[str, str]:
    """All labels of an image but the hash of its inputs, which covers these.

    Args:
        image: what is built.
        checkout: from which sources.
        choice: on which base.
        base: the digest or id of the base.
    """
    made = {
        "org.opencontainers.image.base.digest": base,
        "org.opencontainers.image.base.name": choice.source or choice.label,
        "org.opencontainers.image.created": checkout.created,
        "org.opencontainers.image.description": image.description,
        "org.opencontainers.image.licenses": "Apache-2.0 AND GPL-2.0-only",
        "org.opencontainers.image.revision": checkout.revision,
        "org.opencontainers.image.source": SOURCE,
        "org.opencontainers.image.title": image.title,
        "org.opencontainers.image.vendor": "Kmesh",
        "org.opencontainers.image.version": checkout.version,
        "net.kmesh.image": image.name,
        BASE: choice.label,
    }
    if choice.substitute:
        made[SUBSTITUTE] = choice.wanted.name
    return made
