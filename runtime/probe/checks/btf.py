# SPDX-License-Identifier: Apache-2.0
"""The kernel's own types: with them one object runs on many kernels (CO-RE)."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.verdict import Evidence, Level, Verdict


@capability(
    "btf",
    title="the kernel's type information (BTF)",
    consequence="helpers cannot be checked by name, and programs cannot look into a socket's queues:"
    " only messages whose head shows them to be small are short-cut, the rest goes over TCP",
    remedy="use a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian, Ubuntu 20.10, RHEL 8.2 and later"
    " have it); in a container mount the host's /sys",
)
def probe(context: Context) -> Iterator[Evidence]:
    option = context.facts.option("DEBUG_INFO_BTF")
    if option == "n":
        yield Evidence(
            level=Level.FACT, verdict=Verdict.ABSENT, summary="CONFIG_DEBUG_INFO_BTF is not set"
        )
    if not context.types.available:
        yield Evidence(
            level=Level.NAME,
            verdict=Verdict.ABSENT,
            summary=context.types.reason or "there is none",
        )
    elif not context.types.helpers:
        summary = f"{context.facts.btf_source} is readable and has no enum bpf_func_id"
        yield Evidence(level=Level.NAME, verdict=Verdict.BROKEN, summary=summary)
    else:
        summary = f"{context.facts.btf_source}, {len(context.types.helpers)} helpers by name"
        yield Evidence(level=Level.NAME, verdict=Verdict.PRESENT, summary=summary)
