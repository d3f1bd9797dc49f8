# SPDX-License-Identifier: Apache-2.0
"""The prober's side of the behaviour battery: what it is told, and what stands in for it.

Where the battery cannot run (offline, --quick), the objects that it would have loaded still tell
what it needs; names can then rule a capability out, and never in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path

from runtime.objects import uapi
from runtime.objects.info import ObjectError
from runtime.probe.capability import Context, Shipped, find, registered
from runtime.probe.verdict import Evidence, Finding, Level, Verdict, combine

# Which objects of the group "probe" a capability is tried with, the first pattern that fits.
_OBJECTS = (
    ("connect.*", "connect"),
    ("sockops", "sockops"),
    ("sk_storage", "sockops"),
    ("sockmap.flow_control.btf", "flow"),
    ("sockmap.flow_control.shortcut", "flow"),
    ("sockmap.flow_control.bounded", "bounded"),
    ("sockmap.split", "http"),
    ("sockmap.respond", "answer"),
    ("sockmap.cork", "answer"),
    ("sockmap.home*", "home"),
    ("sockmap.*", "redirect"),
    ("http.*", "http"),
)

_ATTACH_POINTS = {
    "cgroup.connect4": "CGROUP_INET4_CONNECT",
    "cgroup.connect6": "CGROUP_INET6_CONNECT",
    "cgroup.sockops": "CGROUP_SOCK_OPS",
}


def behaviour(
    context: Context,
    objects: Path,
    findings: Iterable[Finding],
    *,
    avoid: frozenset[str],
    budget_seconds: float,
) -> AbstractContextManager[Callable[[], list[Finding]]]:
    """Run the battery, beside what is done in the block; what it gives waits for the findings.

    Args:
        context: the kernel; checks whose needs it does not show are not tried.
        objects: the directory of compiled objects.
        findings: what weaker evidence found.
        avoid: capabilities that a known bug makes dangerous to try.
        budget_seconds: for all checks together.
    """
    from runtime.probe.behaviour import running_battery

    return running_battery(
        objects, budget_seconds=budget_seconds, avoid=avoid, known=known_facts(context, findings)
    )


def known_facts(context: Context, findings: Iterable[Finding]) -> frozenset[str]:
    """What checks may need, as they name it: "map.sockhash", "cgroup.connect4", "btf".

    What is denied or open counts as known: trying then tells why. Without BTF the kernel's types are
    not known, and are all taken to be there: trying decides. What stands in for BTF is as good as BTF to
    what only reads fields.
    """
    disproved = (Verdict.ABSENT, Verdict.BROKEN)
    known = {item.capability for item in findings if item.verdict not in disproved}
    if context.stand_in is not None and context.stand_in.path is not None:
        known.add("btf")
    types = context.types
    maps = types.map_types if types.available else uapi.names("map_types")
    attach = types.attach_types if types.available else uapi.names("attach_types")
    known |= {f"map.{name.lower()}" for name in maps}
    return frozenset(known | {name for name, kind in _ATTACH_POINTS.items() if kind in attach})


def by_name(context: Context, objects: Path | None) -> Iterator[Finding]:
    """What names tell about the capabilities that the battery tries.

    Args:
        context: the kernel.
        objects: the directory of compiled objects, with the group "probe".
    """
    from runtime.probe.behaviour import checks

    inspected: dict[str, tuple[Evidence, ...]] = {}
    for name, check in checks().items():
        stem = next((stem for pattern, stem in _OBJECTS if fnmatchcase(name, pattern)), "")
        if stem not in inspected:
            inspected[stem] = tuple(_needs(context, objects, stem))
        evidence = inspected[stem]
        yield Finding(
            capability=name,
            verdict=combine(evidence, decided_by=Level.BEHAVIOUR),
            evidence=evidence,
            consequence=check.consequence,
            remedy=check.remedy,
        )


def _needs(context: Context, objects: Path | None, stem: str) -> Iterator[Evidence]:
    """What is missing of the needs of one object of the battery; that nothing is, is no proof."""
    if objects is None:
        summary = "there are no compiled objects to try it with"
        yield Evidence(level=Level.NAME, verdict=Verdict.INCONCLUSIVE, summary=summary)
        return
    try:
        info = context.inspect(objects / "probe" / f"{stem}.bpf.o")
    except ObjectError as error:
        yield Evidence(level=Level.NAME, verdict=Verdict.INCONCLUSIVE, summary=str(error))
        return
    shipped = Shipped(label=f"probe.{stem}", group="probe", info=info)
    probes = [item.object_probe for item in registered() if item.decided_by < Level.LOAD]
    found = [item for probe in probes if probe for item in probe(context, shipped)]
    missing = [item for item in found if item.verdict is Verdict.ABSENT]
    yield from missing
    if not missing:
        summary = "by their names its needs are met; only trying it can tell"
        yield Evidence(level=Level.NAME, verdict=Verdict.INCONCLUSIVE, summary=summary)


def title_of(capability: str) -> str:
    """What a capability is, in a few words; "" for one that nobody describes."""
    from runtime.probe.behaviour import checks

    found = find(capability)
    if found is not None:
        return found.title
    check = checks().get(capability)
    text = (check.run.__doc__ or "").strip() if check else ""
    return text.splitlines()[0] if text else ""
