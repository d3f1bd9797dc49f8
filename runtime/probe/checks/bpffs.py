# SPDX-License-Identifier: Apache-2.0
"""A BPF file system: what is pinned there outlives the daemon."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.verdict import Evidence, Level, Verdict


@capability(
    "bpffs",
    title="a BPF file system to pin to",
    consequence="maps and programs cannot be pinned, and Kmesh does not start without: every restart"
    " of the daemon would interrupt the mesh",
    remedy="on the host: `mount -t bpf bpf /sys/fs/bpf`; in a container mount the host's"
    " /sys/fs/bpf into it",
)
def probe(context: Context) -> Iterator[Evidence]:
    facts = context.facts
    if not context.live:
        summary = "whether it is mounted there cannot be told from here"
        yield Evidence(level=Level.FACT, verdict=Verdict.INCONCLUSIVE, summary=summary)
        return
    if facts.bpffs:
        yield Evidence(
            level=Level.FACT, verdict=Verdict.PRESENT, summary=f"mounted at {facts.bpffs}"
        )
    elif "bpf" not in facts.filesystems:
        yield Evidence(
            level=Level.FACT,
            verdict=Verdict.ABSENT,
            summary="the kernel does not know the file system bpf",
            remedy="use a kernel built with CONFIG_BPF_SYSCALL=y",
        )
    elif facts.holds("SYS_ADMIN"):
        summary = "not mounted; `kmesh run` mounts it at /sys/fs/bpf"
        yield Evidence(level=Level.FACT, verdict=Verdict.PRESENT, summary=summary)
    else:
        summary = "not mounted, and mounting it takes CAP_SYS_ADMIN, which is not held"
        yield Evidence(level=Level.FACT, verdict=Verdict.DENIED, summary=summary)
