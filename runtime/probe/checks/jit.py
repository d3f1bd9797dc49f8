# SPDX-License-Identifier: Apache-2.0
"""Whether programs are compiled to machine code."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.verdict import Evidence, Level, Verdict


@capability(
    "jit",
    title="the BPF just-in-time compiler",
    consequence="programs are interpreted: the same work takes several times the CPU time",
    remedy="sysctl -w net.core.bpf_jit_enable=1 (and CONFIG_BPF_JIT=y)",
)
def probe(context: Context) -> Iterator[Evidence]:
    facts = context.facts
    option = facts.option("BPF_JIT")
    if option == "n":
        yield Evidence(
            level=Level.FACT, verdict=Verdict.ABSENT, summary="CONFIG_BPF_JIT is not set"
        )
    elif facts.jit == "0":
        summary = "net.core.bpf_jit_enable=0"
        yield Evidence(level=Level.FACT, verdict=Verdict.ABSENT, summary=summary)
    elif facts.jit:
        summary = f"net.core.bpf_jit_enable={facts.jit}"
        yield Evidence(level=Level.FACT, verdict=Verdict.PRESENT, summary=summary)
    elif facts.option("BPF_JIT_ALWAYS_ON") == "y" or facts.option("BPF_JIT_DEFAULT_ON") == "y":
        yield Evidence(
            level=Level.FACT, verdict=Verdict.PRESENT, summary="on by the kernel's configuration"
        )
