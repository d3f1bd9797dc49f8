# SPDX-License-Identifier: Apache-2.0
"""Program types and attach types that a shipped object uses."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.objects.info import ProgramInfo
from runtime.probe.capability import Context, Shipped, object_capability
from runtime.probe.verdict import Evidence, Level, Verdict

# The types exist in every kernel's enum; what compiles them in is the configuration (bpf_types.h).
_OPTIONS = {
    "CGROUP_SOCK_ADDR": ("CGROUP_BPF",),
    "CGROUP_SOCK": ("CGROUP_BPF",),
    "CGROUP_SKB": ("CGROUP_BPF",),
    "SOCK_OPS": ("CGROUP_BPF",),
    "SK_MSG": ("NET_SOCK_MSG", "BPF_STREAM_PARSER"),
    "SK_SKB": ("NET_SOCK_MSG", "BPF_STREAM_PARSER"),
}


@object_capability(
    "programs.{object}",
    title="program and attach types",
    consequence="the object cannot be loaded",
    remedy="use a newer kernel, or one with the option named",
)
def probe(context: Context, shipped: Shipped) -> Iterator[Evidence]:
    if shipped.info is None:
        return
    wrong = [problem for item in shipped.info.programs for problem in _missing(context, item)]
    unique = {problem.summary: problem for problem in wrong}
    yield from unique.values()
    if unique:
        return
    kinds = sorted({item.attach_type or item.type for item in shipped.info.programs})
    if context.types.program_types:
        summary = f"known to this kernel: {', '.join(kinds)}"
        yield Evidence(level=Level.NAME, verdict=Verdict.PRESENT, summary=summary)
    else:
        summary = f"only loading can tell without BTF: {', '.join(kinds)}"
        yield Evidence(level=Level.NAME, verdict=Verdict.INCONCLUSIVE, summary=summary)


def _missing(context: Context, program: ProgramInfo) -> Iterator[Evidence]:
    types, attach = context.types.program_types, context.types.attach_types
    if types and program.type not in types:
        yield _absent(Level.NAME, f"program type {program.type} is not in this kernel")
    elif attach and program.attach_type and program.attach_type not in attach:
        yield _absent(Level.NAME, f"attach type {program.attach_type} is not in this kernel")
    options = _OPTIONS.get(program.type, ())
    if options and all(context.facts.option(name) == "n" for name in options):
        yield _absent(Level.NAME, f"{program.type} needs CONFIG_{options[0]}=y")


def _absent(level: Level, summary: str) -> Evidence:
    return Evidence(level=level, verdict=Verdict.ABSENT, summary=summary)
