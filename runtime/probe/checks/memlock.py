# SPDX-License-Identifier: Apache-2.0
"""Room for maps: kernels before 5.11 charge them to RLIMIT_MEMLOCK, later ones to the cgroup."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.denial import memlock_counts
from runtime.probe.verdict import Evidence, Level, Verdict

_ENOUGH = 256 << 20


@capability(
    "memlock",
    title="room for maps",
    consequence="large maps are refused: with many services the mesh cannot be programmed",
    remedy="raise the limit (`ulimit -l unlimited`, systemd LimitMEMLOCK=infinity), or grant"
    " CAP_SYS_RESOURCE",
)
def probe(context: Context) -> Iterator[Evidence]:
    facts = context.facts
    if not memlock_counts(facts):
        if facts.upstream.version is not None:
            summary = "charged to the memory cgroup (kernel 5.11 and later), not to RLIMIT_MEMLOCK"
            yield Evidence(level=Level.FACT, verdict=Verdict.PRESENT, summary=summary)
        return
    if not context.live:
        return
    enough = facts.memlock < 0 or facts.memlock >= _ENOUGH or facts.holds("SYS_RESOURCE")
    limit = "unlimited" if facts.memlock < 0 else f"{facts.memlock >> 10} KiB"
    yield Evidence(
        level=Level.FACT,
        verdict=Verdict.PRESENT if enough else Verdict.DENIED,
        summary=f"RLIMIT_MEMLOCK is {limit}, and this kernel charges maps to it",
    )
