# SPDX-License-Identifier: Apache-2.0
"""The shipped objects themselves: whether each path has any, and whether they are whole."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.verdict import Evidence, Level, Verdict


def _shipped(context: Context, group: str) -> Iterator[Evidence]:
    found = [item for item in context.objects if item.group == group]
    for item in found:
        if item.error:
            yield Evidence(level=Level.FACT, verdict=Verdict.BROKEN, summary=item.error)
    if not found:
        summary = f"this build of Kmesh carries no program of the {group} path"
        yield Evidence(level=Level.FACT, verdict=Verdict.ABSENT, summary=summary)
    elif not any(item.error for item in found):
        programs = sum(len(item.info.programs) for item in found if item.info)
        summary = f"{len(found)} objects, {programs} programs, all whole"
        yield Evidence(level=Level.FACT, verdict=Verdict.PRESENT, summary=summary)


@capability(
    "objects.compat",
    title="the programs of the compat path",
    consequence="there is nothing to load: no traffic is managed",
    remedy="build them (`make bpf`) or say where they are (KMESH_OBJECTS, --objects); from an"
    " image: pull it again, and check its digest",
)
def compat(context: Context) -> Iterator[Evidence]:
    return _shipped(context, "compat")


@capability(
    "objects.enhanced",
    title="the programs of the enhanced path",
    consequence="HTTP is not routed in the kernel; requests that need it go to a waypoint (compat)",
    remedy="nothing to do on this host: use a release of Kmesh that carries the enhanced path",
)
def enhanced(context: Context) -> Iterator[Evidence]:
    return _shipped(context, "enhanced")
