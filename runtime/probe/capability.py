# SPDX-License-Identifier: Apache-2.0
"""The registry of capabilities: each probe is one file that registers itself by a decorator.

A probe looks at one thing and yields observations; what they mean for the user (consequence,
remedy) stands beside it, and the verdict is made in one place for all (runtime.probe.verdict).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runtime.objects.info import ObjectInfo
from runtime.probe.facts import Facts
from runtime.probe.names import KernelTypes
from runtime.probe.standin import StandIn
from runtime.probe.verdict import Evidence, Finding, Level, Verdict, combine, deciding


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """An object as found: its label ("compat.connect"), and what it needs or why it is unusable.

    `costs` is what the user misses without it, where that is no path.
    """

    label: str
    group: str
    info: ObjectInfo | None
    error: str = ""
    costs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What probes look at.

    Attributes:
        live: the kernel is the running one and may be asked.
        inspect: reads what an object needs (it may remember).
        stand_in: what stands in for the running kernel's BTF, where that is not there.
    """

    facts: Facts
    types: KernelTypes
    inspect: Callable[[Path], ObjectInfo]
    objects: tuple[Shipped, ...] = ()
    live: bool = True
    stand_in: StandIn | None = None


_SIDE_BY_SIDE = 4

Probe = Callable[[Context], Iterable[Evidence]]
ObjectProbe = Callable[[Context, Shipped], Iterable[Evidence]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing that a path needs, or runs better with.

    Attributes:
        name: dotted; "{object}" in it makes one capability for each shipped object.
        title: what it is, in a few words.
        decided_by: the weakest evidence that can say `present`.
    """

    name: str
    title: str
    consequence: str
    remedy: str
    decided_by: Level = Level.FACT
    probe: Probe | None = None
    object_probe: ObjectProbe | None = None


_registry: dict[str, Capability] = {}


def capability(
    name: str, *, title: str, consequence: str, remedy: str, decided_by: Level = Level.FACT
) -> Callable[[Probe], Probe]:
    """Register a probe for one capability; see Capability for the arguments."""

    def register(probe: Probe) -> Probe:
        _registry[name] = Capability(
            name=name,
            title=title,
            consequence=consequence,
            remedy=remedy,
            decided_by=decided_by,
            probe=probe,
        )
        return probe

    return register


def object_capability(
    name: str, *, title: str, consequence: str, remedy: str, decided_by: Level = Level.FACT
) -> Callable[[ObjectProbe], ObjectProbe]:
    """Register a probe that runs once for each shipped object; `name` contains "{object}"."""

    def register(probe: ObjectProbe) -> ObjectProbe:
        _registry[name] = Capability(
            name=name,
            title=title,
            consequence=consequence,
            remedy=remedy,
            decided_by=decided_by,
            object_probe=probe,
        )
        return probe

    return register


def registered() -> tuple[Capability, ...]:
    """Every capability, in the order of registration."""
    return tuple(_registry.values())


def find(name: str) -> Capability | None:
    """The registered capability that a finding's name belongs to."""
    if name in _registry:
        return _registry[name]
    stems = (item for item in _registry.values() if "{object}" in item.name)
    return next((item for item in stems if name.startswith(item.name.split("{")[0])), None)


def run_probes(context: Context, *, levels: Container[Level] = tuple(Level)) -> list[Finding]:
    """Run every registered probe that decides at one of the levels.

    One that observes nothing does not apply here.
    """
    findings: list[Finding] = []
    for item in registered():
        if item.decided_by not in levels:
            continue
        if item.probe is not None and (found := tuple(item.probe(context))):
            findings.append(conclude(item, item.name, found))
        if item.object_probe is not None:
            findings += [
                conclude(
                    item, item.name.format(object=shipped.label), evidence, costs=shipped.costs
                )
                for shipped, evidence in _observe(item, context)
                if evidence
            ]
    return findings


def _observe(item: Capability, context: Context) -> Iterable[tuple[Shipped, tuple[Evidence, ...]]]:
    """Probe each object. Loading is side by side: the verifier takes its time, in the kernel."""
    probe = item.object_probe
    assert probe is not None

    def look(shipped: Shipped) -> tuple[Evidence, ...]:
        return tuple(probe(context, shipped))

    if item.decided_by < Level.LOAD or len(context.objects) < 2:
        return [(shipped, look(shipped)) for shipped in context.objects]
    with ThreadPoolExecutor(max_workers=_SIDE_BY_SIDE) as pool:
        # The largest first: begun last, it would be waited for alone.
        begun = {
            shipped.label: pool.submit(look, shipped)
            for shipped in sorted(context.objects, key=_instructions, reverse=True)
        }
    return [(shipped, begun[shipped.label].result()) for shipped in context.objects]


def _instructions(shipped: Shipped) -> int:
    return sum(program.instructions for program in shipped.info.programs) if shipped.info else 0


def conclude(
    item: Capability, name: str, evidence: Iterable[Evidence], *, costs: str = ""
) -> Finding:
    """Make a finding of a capability's evidence; `costs` stands in for its consequence."""
    ordered = tuple(sorted(evidence, key=lambda one: one.level))
    verdict = combine(ordered, decided_by=item.decided_by)
    finding = Finding(capability=name, verdict=verdict, evidence=ordered)
    if verdict is Verdict.PRESENT:
        return finding
    decided = deciding(finding)
    remedy = decided.remedy if decided and decided.remedy else item.remedy
    return Finding(
        capability=name,
        verdict=verdict,
        evidence=ordered,
        consequence=costs or item.consequence,
        remedy=remedy,
    )
