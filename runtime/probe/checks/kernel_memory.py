# SPDX-License-Identifier: Apache-2.0
"""Reading kernel memory from BPF: how a program looks at a socket's queues before it redirects."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.denial import grant
from runtime.probe.verdict import Evidence, Level, Verdict

_HELPER = "probe_read_kernel"


@capability(
    "kernel.memory",
    title="reading kernel memory from BPF",
    consequence="flow control cannot look at queues: only messages whose head shows them to be"
    " small are short-cut, the rest goes over TCP",
    remedy=grant("PERFMON"),
)
def probe(context: Context) -> Iterator[Evidence]:
    facts = context.facts
    if context.types.helpers:
        known = _HELPER in context.types.helpers
        yield Evidence(
            level=Level.NAME,
            verdict=Verdict.PRESENT if known else Verdict.ABSENT,
            summary=f"helper {_HELPER} is {'' if known else 'not '}in the kernel's BTF",
            remedy="" if known else "use a kernel of 5.5 or later",
        )
    if not context.live:
        return
    if facts.lockdown == "confidentiality":
        yield Evidence(
            level=Level.LOAD,
            verdict=Verdict.DENIED,
            summary="lockdown=confidentiality forbids it, whatever is held",
            remedy="boot with lockdown=integrity or none, if your policy allows",
        )
    elif not facts.holds("PERFMON", "SYS_ADMIN"):
        yield Evidence(level=Level.LOAD, verdict=Verdict.DENIED, summary="CAP_PERFMON is not held")
