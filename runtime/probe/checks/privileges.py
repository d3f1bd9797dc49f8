# SPDX-License-Identifier: Apache-2.0
"""The capabilities that this process holds: what each path needs, and what it may do without."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.denial import grant
from runtime.probe.verdict import Evidence, Level, Verdict

_ROOTLESS = "run as real root: a rootless container cannot load BPF"


def _held(context: Context, *names: str) -> Iterator[Evidence]:
    """Present when one of the capabilities is held; offline there is no process that could."""
    facts = context.facts
    if facts.capabilities is None:
        return
    listed = " or ".join(f"CAP_{name}" for name in names)
    if facts.holds(*names):
        held = next(name for name in names if facts.holds(name))
        yield Evidence(level=Level.FACT, verdict=Verdict.PRESENT, summary=f"CAP_{held} is held")
    elif facts.user_namespace:
        summary = "in a user namespace: capabilities held here do not count for BPF"
        yield Evidence(level=Level.FACT, verdict=Verdict.DENIED, summary=summary, remedy=_ROOTLESS)
    else:
        yield Evidence(level=Level.FACT, verdict=Verdict.DENIED, summary=f"{listed} is not held")


@capability(
    "capability.bpf",
    title="the privilege to load BPF programs",
    consequence="nothing can be loaded into the kernel: no traffic is managed",
    remedy=grant("BPF", "NET_ADMIN", "PERFMON"),
)
def bpf(context: Context) -> Iterator[Evidence]:
    return _held(context, "BPF", "SYS_ADMIN")


@capability(
    "capability.net_admin",
    title="the privilege to attach programs to networking",
    consequence="no program can be attached to a cgroup or a socket: no traffic is managed",
    remedy=grant("NET_ADMIN"),
)
def net_admin(context: Context) -> Iterator[Evidence]:
    return _held(context, "NET_ADMIN", "SYS_ADMIN")


@capability(
    "capability.perfmon",
    title="the privilege to read kernel memory from BPF",
    consequence="the verifier is stricter without it and refuses programs of every path (load.*); and none"
    " may look into a socket's queues before it redirects",
    remedy=grant("PERFMON"),
)
def perfmon(context: Context) -> Iterator[Evidence]:
    return _held(context, "PERFMON", "SYS_ADMIN")


@capability(
    "capability.sys_admin",
    title="the privilege to enter network namespaces and to mount bpffs",
    consequence="HTTP goes by the compat path, as the gate cannot enter pods' network namespaces; pods cannot"
    " be told apart by them (needed where the host has cgroup v1 or hybrid); and bpffs must be"
    " mounted by somebody else",
    remedy=grant("SYS_ADMIN"),
)
def sys_admin(context: Context) -> Iterator[Evidence]:
    return _held(context, "SYS_ADMIN")
