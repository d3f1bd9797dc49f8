# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: how pods are told apart where the host has cgroup v1 or hybrid."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.verdict import Evidence, Level, Verdict

_COOKIE = "get_netns_cookie"


@capability(
    "netns",
    title="network namespaces, known to BPF by cookie",
    consequence="pods cannot be told apart by network namespace: on a host with cgroup v1 or hybrid"
    " no pod can be enrolled; on cgroup v2 nothing is lost",
    remedy="use a kernel of 5.7 or later with CONFIG_NET_NS=y, or a host with cgroup v2 only",
)
def probe(context: Context) -> Iterator[Evidence]:
    option = context.facts.option("NET_NS")
    if option is not None:
        verdict = Verdict.PRESENT if option == "y" else Verdict.ABSENT
        yield Evidence(level=Level.FACT, verdict=verdict, summary=f"CONFIG_NET_NS={option}")
    if context.types.helpers:
        known = _COOKIE in context.types.helpers
        yield Evidence(
            level=Level.NAME,
            verdict=Verdict.PRESENT if known else Verdict.ABSENT,
            summary=f"helper {_COOKIE} is {'' if known else 'not '}in the kernel's BTF",
        )
