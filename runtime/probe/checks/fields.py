# SPDX-License-Identifier: Apache-2.0
"""Fields of kernel structures that a shipped object reads."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.errors import KmeshError
from runtime.probe.capability import Context, Shipped, object_capability
from runtime.probe.verdict import Evidence, Level, Verdict


@object_capability(
    "fields.{object}",
    title="fields of kernel structures that the programs read",
    consequence="the object cannot be loaded: it would not know where to read",
    remedy="use a kernel with BTF that has them, or the image built for this one",
)
def probe(context: Context, shipped: Shipped) -> Iterator[Evidence]:
    if shipped.info is None or not shipped.info.core_fields:
        return
    wanted = shipped.info.core_fields
    if not context.types.available:
        yield _without_btf(context, wanted)
        return
    missing = [path for path in wanted if not context.types.has_field(path)]
    yield Evidence(
        level=Level.NAME,
        verdict=Verdict.ABSENT if missing else Verdict.PRESENT,
        summary=f"not in this kernel: {', '.join(missing)}"
        if missing
        else f"all {len(wanted)} are here",
    )


def _without_btf(context: Context, wanted: tuple[str, ...]) -> Evidence:
    """The shipped object cannot be relocated; the kernel's headers may still know the fields."""
    from runtime.probe import bcc_adapter

    summary, remedy = "reading them takes the kernel's BTF, which is not there", ""
    if context.live and bcc_adapter.unavailable(context.facts.release) is None:
        try:
            missing = bcc_adapter.missing_fields(context.facts.release, wanted)
        except KmeshError as error:
            summary += f"; {error}"
        else:
            summary += f"; its headers lack {', '.join(missing)}" if missing else ""
            remedy = (
                "" if missing else "the kernel's headers have them: compile online (kmesh image)"
            )
    return Evidence(level=Level.NAME, verdict=Verdict.ABSENT, summary=summary, remedy=remedy)
