# SPDX-License-Identifier: Apache-2.0
"""Helpers that a shipped object calls: its numbers, compared by name with this kernel's."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.objects.info import HelperUse, ObjectInfo
from runtime.probe.capability import Context, Shipped, object_capability
from runtime.probe.verdict import Evidence, Level, Verdict

_RENUMBERED = (
    "use the image built for this kernel (kmesh-build image): this object would call other helpers"
    " than it means to"
)


@object_capability(
    "helpers.{object}",
    title="kernel functions that the programs call",
    consequence="the object must not be loaded: it would fail, or call another helper than it means",
    remedy="use a newer kernel, or the image built for this one (kmesh-build image)",
)
def probe(context: Context, shipped: Shipped) -> Iterator[Evidence]:
    if shipped.info is None:
        return
    if not context.types.helpers:
        yield Evidence(
            level=Level.NAME,
            verdict=Verdict.INCONCLUSIVE,
            summary="without the kernel's BTF the helpers' names cannot be compared",
        )
        return
    wrong = [
        problem
        for use in shipped.info.needed_helpers
        if (problem := _compare(context, use)) is not None
    ]
    yield from wrong
    if not wrong:
        summary = f"all {len(shipped.info.needed_helpers)} are here under their numbers"
        summary += _without(context, shipped.info)
        yield Evidence(level=Level.NAME, verdict=Verdict.PRESENT, summary=summary)


def _without(context: Context, info: ObjectInfo) -> str:
    """What the object can do without, and will have to."""
    optional = (use for use in info.helpers if use.name in info.optional_helpers)
    names = [use.name for use in optional if _compare(context, use) is not None]
    return f"; it does without {', '.join(names)}" if names else ""


def _compare(context: Context, use: HelperUse) -> Evidence | None:
    here = context.types.helper_names.get(use.id)
    if here == use.name:
        return None
    if here is None and use.name not in context.types.helpers:
        summary = f"helper {use.name} ({use.id}) is not in this kernel"
        return Evidence(level=Level.NAME, verdict=Verdict.ABSENT, summary=summary)
    number = context.types.helpers.get(use.name)
    moved = f"{use.name} is {number}" if number is not None else f"there is no {use.name}"
    other = f"number {use.id} is {here or 'free'}"
    return Evidence(
        level=Level.NAME,
        verdict=Verdict.ABSENT,
        summary=f"helper numbers differ in this kernel: {other} here, {moved}",
        remedy=_RENUMBERED,
    )
