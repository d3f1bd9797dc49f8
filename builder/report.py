# SPDX-License-Identifier: Apache-2.0
"""What a build ends with: a table of images for people, the same as JSON for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from builder.kernels import summary
from builder.request import ImageResult

COLUMNS = (
    "Image",
    "Size",
    "Made of",
    "Base",
    "Digest",
    "Objects",
    "Seconds",
    "State",
    "Known kernels (judged by names)",
)
SENTENCES = ("Made of", "Base", "Known kernels (judged by names)")  # for beneath a row


def megabytes(size: int) -> str:
    """Bytes as people read them; a megabyte is a million."""
    return f"{size / 1e6:.0f} MB" if size >= 9.5e6 else f"{size / 1e6:.1f} MB"


def rows(results: Sequence[ImageResult]) -> list[tuple[str, ...]]:
    """The table, one row an image."""
    return [
        (
            result.reference,
            megabytes(result.size),
            " + ".join(f"{layer.name} {megabytes(layer.size)}" for layer in result.layers),
            f"{result.base}, NOT {result.image.base.name}" if result.substitute else result.base,
            result.id.removeprefix("sha256:")[:12],
            str(result.objects),
            f"{result.seconds:.1f}",
            result.state,
            summary(result.image, result.kernels),
        )
        for result in results
    ]


def to_json(
    results: Sequence[ImageResult], *, engine: str, seconds: float, probe: dict[str, Any] | None
) -> dict[str, Any]:
    """The same as JSON data.

    Args:
        results: the images.
        engine: which engine built them.
        seconds: how long all of it took.
        probe: the report of the generic image's prober on this host.
    """
    return {
        "schema_version": 1,
        "engine": engine,
        "seconds": round(seconds, 1),
        "images": [_image(result) for result in results],
        "probe": probe,
    }


def _image(result: ImageResult) -> dict[str, Any]:
    return {
        "image": result.image.name,
        "reference": result.reference,
        "id": result.id,
        "size": result.size,
        "carries": result.image.carries,
        "layers": [asdict(layer) for layer in result.layers],
        "base": result.base,
        "substitute": result.substitute,
        "reason": result.reason,
        "objects": result.objects,
        "seconds": round(result.seconds, 1),
        "state": result.state,
        "kernels_judged_by": "names",
        "kernels": [asdict(kernel) for kernel in result.kernels],
    }
