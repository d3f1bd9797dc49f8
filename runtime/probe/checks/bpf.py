# SPDX-License-Identifier: Apache-2.0
"""Whether the kernel has bpf(2) at all, and lets this process make a map."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from runtime.bpf.lib import lib
from runtime.probe.capability import Context, capability
from runtime.probe.denial import why_denied
from runtime.probe.verdict import Evidence, Level, Verdict

_ARRAY = 2


@capability(
    "bpf",
    title="the bpf(2) system call",
    consequence="Kmesh cannot do anything on this node: no traffic is managed",
    remedy="use a kernel built with CONFIG_BPF_SYSCALL=y and CONFIG_CGROUP_BPF=y",
)
def probe(context: Context) -> Iterator[Evidence]:
    for option in ("BPF_SYSCALL", "CGROUP_BPF"):
        value = context.facts.option(option)
        if value is not None:
            verdict = Verdict.PRESENT if value == "y" else Verdict.ABSENT
            yield Evidence(level=Level.FACT, verdict=verdict, summary=f"CONFIG_{option}={value}")
    if context.live:
        yield _make_a_map(context)


def _make_a_map(context: Context) -> Evidence:
    result = lib().bpf_map_create(_ARRAY, b"kmesh_probe", 4, 4, 1, None)
    if result >= 0:
        os.close(result)
        return Evidence(level=Level.LOAD, verdict=Verdict.PRESENT, summary="made a map")
    code = -result
    denial = why_denied(context.facts, code=code)
    if denial is not None:
        return Evidence(
            level=Level.LOAD,
            verdict=Verdict.DENIED,
            summary=f"making a map was refused: {denial.reason}",
            errno=code,
            remedy=denial.remedy,
        )
    verdict = Verdict.ABSENT if code == errno.ENOSYS else Verdict.INCONCLUSIVE
    summary = f"making a map failed: {os.strerror(code)}"
    return Evidence(level=Level.LOAD, verdict=verdict, summary=summary, errno=code)
