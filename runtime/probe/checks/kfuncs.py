# SPDX-License-Identifier: Apache-2.0
"""Kernel functions (kfuncs) that a shipped object imports."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, Shipped, object_capability
from runtime.probe.verdict import Evidence, Level, Verdict


@object_capability(
    "kfuncs.{object}",
    title="kernel functions (kfuncs) that the programs import",
    consequence="the object cannot be loaded",
    remedy="use a kernel that has them, or the image built for this one (kmesh-build image)",
)
def probe(context: Context, shipped: Shipped) -> Iterator[Evidence]:
    if shipped.info is None or not shipped.info.kfuncs:
        return
    if not context.types.available:
        summary = "kfuncs are found through the kernel's BTF, which is not there"
        yield Evidence(level=Level.NAME, verdict=Verdict.ABSENT, summary=summary)
        return
    missing = [name for name in shipped.info.kfuncs if not context.types.has_function(name)]
    yield Evidence(
        level=Level.NAME,
        verdict=Verdict.ABSENT if missing else Verdict.PRESENT,
        summary=f"not in this kernel: {', '.join(missing)}"
        if missing
        else f"all {len(shipped.info.kfuncs)} are here",
    )
