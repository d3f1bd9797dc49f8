# SPDX-License-Identifier: Apache-2.0
"""Fields of kernel structures that a shipped object reads."""

from __future__ import annotations

from collections.abc import Iterator

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
    """The kernel's headers may know the fields, and libbpf takes it from them."""
    found = context.stand_in
    if found is None or found.path is None:
        summary = "reading them takes the kernel's BTF, which is not there"
        summary += f"; nor can its headers be asked: {found.why_not}" if found else ""
        return _seen(Verdict.ABSENT, summary, remedy=found.remedy if found else "")
    missing = [path for path in wanted if path in found.missing]
    if missing:
        summary = f"not in the kernel's headers ({found.where}): {', '.join(missing)}"
        return _seen(Verdict.ABSENT, summary)
    summary = (
        f"all {len(wanted)} are here, by the kernel's headers in {found.where}, which bcc compiled:"
        " there is no BTF"
    )
    return _seen(Verdict.PRESENT, summary)


def _seen(verdict: Verdict, summary: str, *, remedy: str = "") -> Evidence:
    return Evidence(level=Level.NAME, verdict=verdict, summary=summary, remedy=remedy)
