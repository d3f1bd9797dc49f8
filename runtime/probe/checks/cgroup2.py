# SPDX-License-Identifier: Apache-2.0
"""Where cgroup v2 is mounted: connect programs attach to it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.verdict import Evidence, Level, Verdict

_MOUNT = "mount -t cgroup2 none /sys/fs/cgroup/unified"


@capability(
    "cgroup2",
    title="a cgroup v2 hierarchy to attach to",
    consequence="service addresses cannot be rewritten: no traffic is managed",
    remedy=f"mount it (`{_MOUNT}`) and, in a container, mount the host's /sys/fs/cgroup into it",
)
def probe(context: Context) -> Iterator[Evidence]:
    facts = context.facts
    option = facts.option("CGROUPS")
    if option == "n":
        yield Evidence(level=Level.FACT, verdict=Verdict.ABSENT, summary="CONFIG_CGROUPS=n")
    if not context.live:
        summary = "whether it is mounted there cannot be told from here"
        yield Evidence(level=Level.FACT, verdict=Verdict.INCONCLUSIVE, summary=summary)
        return
    if facts.cgroup2_mount:
        yield from _mounted(context)
    elif "cgroup2" in facts.filesystems:
        yield Evidence(
            level=Level.FACT,
            verdict=Verdict.ABSENT,
            summary=f"the kernel knows cgroup2 and it is not mounted (layout: {facts.cgroup})",
        )
    else:
        yield Evidence(
            level=Level.FACT,
            verdict=Verdict.ABSENT,
            summary="the kernel does not know cgroup2",
            remedy="use a kernel built with CONFIG_CGROUPS=y (4.5 or later)",
        )


def _mounted(context: Context) -> Iterator[Evidence]:
    facts = context.facts
    where = f"mounted at {facts.cgroup2_mount} (layout: {facts.cgroup})"
    if facts.cgroup2_writable and os.access(facts.cgroup2_mount, os.W_OK):
        yield Evidence(level=Level.FACT, verdict=Verdict.PRESENT, summary=where)
        return
    yield Evidence(
        level=Level.FACT,
        verdict=Verdict.DENIED,
        summary=f"{where}, and not writable here",
        remedy="mount the host's /sys/fs/cgroup read-write (docker run -v /sys/fs/cgroup:"
        "/sys/fs/cgroup --cgroupns host; Kubernetes: hostPath), and run as root",
    )
