# SPDX-License-Identifier: Apache-2.0
"""One run of the prober: facts, names, loads and behaviour, then one decision.

facts + BTF + objects -> probes -> (behaviour battery) -> known bugs -> mode -> report
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from runtime.bpf.objects import relocate_against
from runtime.errors import KmeshError
from runtime.objects.info import ObjectError
from runtime.objects.locate import object_files
from runtime.probe import cache as kept
from runtime.probe import checks
from runtime.probe.battery import behaviour, by_name
from runtime.probe.bugs import KNOWN, BugHit, avoided, hits
from runtime.probe.capability import Context, Shipped, run_probes
from runtime.probe.facts import Facts, offline_facts, running_facts
from runtime.probe.mode import choose
from runtime.probe.names import KernelTypes, module_files
from runtime.probe.provider import GROUP as OWN_GROUP
from runtime.probe.provider import Form, identities, kmesh_functions, naming
from runtime.probe.report import Report
from runtime.probe.standin import StandIn, stand_in
from runtime.probe.verdict import Evidence, Finding, Level, Verdict, combine
from runtime.version import package_version

PATHS = ("compat", "enhanced")
# What runs beside either path, and what is missed without it.
BESIDE = {
    "accelerate": "connections within the node go over TCP; traffic is served as otherwise",
    "bypass": "requests to endpoints of this node go over TCP; traffic is served as otherwise",
    "authorize": "L4 policies cannot be enforced; where there are any, readiness says so",
    "telemetry": "no TCP metrics and no access log; traffic is served as otherwise",
}
GROUPS = (*PATHS, *BESIDE)
_COSTS = {**BESIDE, OWN_GROUP: "the enhanced path's second provider cannot run"}
# Checks decide by conditions: a quiet machine needs half a second. A node under load, or emulated, is
# not to end on a lesser path for being slow.
BUDGET_SECONDS = 40.0
_BEFORE_LOADING = (Level.FACT, Level.NAME)
_TRIED = (Verdict.PRESENT, Verdict.BROKEN, Verdict.ABSENT)

assert checks  # importing it registers the probes


def probe(
    *,
    objects: Path | None,
    quick: bool = False,
    overrides: frozenset[str] = frozenset(),
    cache: bool = True,
) -> Report:
    """Probe the running kernel. Changes nothing on the host that outlives the call.

    Args:
        objects: the directory of compiled objects, None when there are none.
        quick: leave the behaviour battery out, unless earlier findings of it can be believed.
        overrides: known bugs that the user vouches to be mended here, by name.
        cache: believe, and keep, findings of an earlier run under the same key.

    Raises:
        KmeshError: an override is no known bug's name, or libbpf is not there.
    """
    began = time.monotonic()
    _check(overrides)
    facts, inspections = running_facts(), kept.Inspections(enabled=cache)
    btf = Path(facts.btf_source) if facts.btf_source else None
    modules = naming(module_files(btf)) if btf else []
    found = None if btf else _stand_in(facts, objects, inspections, believe=cache)
    relocate_against(found.path if found else None)
    key = ""
    if cache:
        known = [found.identity] if found else []
        known += identities(modules)
        digest = kept.objects_digest(_files(objects, (*GROUPS, OWN_GROUP, "probe")))
        key = kept.cache_key(
            facts,
            btf=btf,
            objects=digest,
            version=package_version(),
            variant=[*overrides, *known],
        )
        if (old := kept.load(key)) is not None:
            inspections.keep()
            report = _report(facts, old.findings, overrides=overrides, began=began, tried=True)
            return replace(
                report,
                cached=True,
                taken_at=old.taken_at,
                stand_in=found.path if found else None,
            )
    types = KernelTypes(
        btf,
        reason="" if btf else "there is no /sys/kernel/btf/vmlinux",
        modules=modules,
    )
    context = replace(_context(facts, types, objects, inspections, live=True), stand_in=found)
    findings = _probe(context, objects, overrides=overrides, quick=quick)
    tried = not quick and objects is not None
    report = _report(facts, findings, overrides=overrides, began=began, tried=tried)
    inspections.keep()
    if key and not quick:
        kept.store(key, findings, taken_at=report.taken_at)
    return replace(report, quick=quick, stand_in=found.path if found else None)


def _stand_in(
    facts: Facts, objects: Path | None, inspections: kept.Inspections, *, believe: bool
) -> StandIn | None:
    """What stands in for BTF, for all fields that any object reads; None when none reads any."""
    wanted: set[str] = set()
    for path in _files(objects, (*GROUPS, "probe")):
        with suppress(ObjectError):  # it is told with the other findings
            wanted.update(inspections.inspect(path).core_fields)
    return stand_in(facts, wanted, believe=believe) if wanted else None


def probe_offline(
    *,
    btf: Path | None,
    config: Path | None,
    release: str | None,
    objects: Path | None,
    modules: Iterable[Path] = (),
    overrides: frozenset[str] = frozenset(),
    inspections: kept.Inspections | None = None,
) -> Report:
    """Judge a kernel that is not running, from its BTF and configuration: facts and names alone.

    Args:
        btf: raw BTF, or an ELF file (vmlinux) that carries it; None where it was built without, which
            its configuration must then say.
        config: the kernel's build configuration, plain or gzipped.
        release: its `uname -r`, for the table of known bugs.
        objects: the directory of compiled objects.
        modules: BTF of its modules, as /sys/kernel/btf/MODULE has it.
        overrides: known bugs that the user vouches to be mended, by name.
        inspections: what is known of the objects already, for those who judge many kernels.

    Raises:
        KmeshError: the files are not what they should be.
    """
    began = time.monotonic()
    _check(overrides)
    facts = offline_facts(release=release, config=config, btf=btf)
    if config is not None and not facts.kconfig:
        raise KmeshError(f"{config} is no kernel configuration", hint="take /boot/config-RELEASE")
    types = KernelTypes(btf, reason="" if btf else "this kernel was built without", modules=modules)
    context = _context(facts, types, objects, inspections or kept.Inspections(), live=False)
    built_without = btf is None and facts.option("DEBUG_INFO_BTF") == "n"
    if not types.available and not built_without:
        raise KmeshError(types.reason, hint="take /sys/kernel/btf/vmlinux of that kernel")
    findings = _probe(context, objects, overrides=overrides, quick=True)
    return replace(_report(facts, findings, overrides=overrides, began=began), offline=True)


def _context(
    facts: Facts,
    types: KernelTypes,
    objects: Path | None,
    inspections: kept.Inspections,
    *,
    live: bool,
) -> Context:
    groups = GROUPS
    if kmesh_functions(types).form is Form.KFUNCS:  # elsewhere nobody would load it
        groups = (*GROUPS, OWN_GROUP)
    shipped = tuple(
        _inspected(group, path, inspections)
        for group in groups
        for path in _files(objects, (group,))
    )
    return Context(
        facts=facts, types=types, objects=shipped, live=live, inspect=inspections.inspect
    )


def _files(objects: Path | None, groups: Iterable[str]) -> list[Path]:
    return [path for group in groups for path in object_files(objects, group)] if objects else []


def _inspected(group: str, path: Path, inspections: kept.Inspections) -> Shipped:
    label = f"{group}.{path.name.removesuffix('.bpf.o')}"
    try:
        info, error = inspections.inspect(path), ""
    except ObjectError as damage:  # a finding, not the end
        info, error = None, str(damage)
    return Shipped(label=label, group=group, info=info, error=error, costs=_COSTS.get(group, ""))


def _check(overrides: frozenset[str]) -> None:
    known = {bug.name for bug in KNOWN}
    for name in sorted(overrides - known):
        raise KmeshError(
            f"no known bug has the name {name}", hint=f"names are: {', '.join(sorted(known))}"
        )


def _probe(
    context: Context, objects: Path | None, *, overrides: frozenset[str], quick: bool
) -> tuple[Finding, ...]:
    found = hits(context.facts.upstream, overrides=overrides)
    weak = run_probes(context, levels=_BEFORE_LOADING)
    named = list(by_name(context, objects))
    if quick or objects is None:
        tried: AbstractContextManager[Callable[[], list[Finding]]] = nullcontext(list)
    else:
        tried = behaviour(
            context,
            objects,
            merge(weak, named),
            avoid=avoided(found),
            budget_seconds=BUDGET_SECONDS,
        )
    # The battery waits for packets most of the time, and the verifier computes.
    with tried as answers:
        loaded = run_probes(context, levels=(Level.LOAD,))
        findings = merge(merge([*weak, *loaded], named), answers())
    return tuple(with_bugs(findings, found))


def merge(findings: Sequence[Finding], more: Iterable[Finding]) -> list[Finding]:
    """Put findings about the same capability together: all the evidence, one verdict."""
    merged = {finding.capability: finding for finding in findings}
    for new in more:
        old = merged.get(new.capability)
        merged[new.capability] = _together(old, new) if old else new
    return list(merged.values())


def _together(old: Finding, new: Finding) -> Finding:
    evidence = tuple(sorted((*old.evidence, *new.evidence), key=lambda item: item.level))
    verdict = combine(evidence)
    if verdict is Verdict.PRESENT:
        return Finding(capability=old.capability, verdict=verdict, evidence=evidence)
    speaker = new if new.verdict is verdict else old
    return replace(speaker, verdict=verdict, evidence=evidence)


def with_bugs(findings: Sequence[Finding], found: Iterable[BugHit]) -> list[Finding]:
    """Mark what a known bug makes us leave alone, whatever its other evidence says."""
    marked = {finding.capability: finding for finding in findings}
    for hit in found:
        for name in () if hit.overruled else hit.bug.avoids:
            old = marked.get(name)
            if old is not None and old.verdict in (Verdict.ABSENT, Verdict.DENIED):
                continue
            marked[name] = Finding(
                capability=name,
                verdict=Verdict.BROKEN,
                evidence=(*(old.evidence if old else ()), _bug_evidence(hit)),
                consequence=hit.bug.consequence,
                remedy=hit.remedy,
            )
    return list(marked.values())


def _bug_evidence(hit: BugHit) -> Evidence:
    summary = f"known bug {hit.bug.name} of {hit.version}: {hit.bug.title}; not used, not tried"
    return Evidence(level=Level.FACT, verdict=Verdict.BROKEN, summary=summary)


def _report(
    facts: Facts,
    findings: Sequence[Finding],
    *,
    overrides: frozenset[str],
    began: float,
    tried: bool = False,
) -> Report:
    tested = [
        finding.capability
        for finding in findings
        if any(
            item.level is Level.BEHAVIOUR and item.verdict in _TRIED for item in finding.evidence
        )
    ]
    return Report(
        facts=facts,
        findings=tuple(findings),
        bugs=hits(facts.upstream, overrides=overrides, tested=tested),
        mode=choose(findings, tried=tried),
        duration_ms=round((time.monotonic() - began) * 1000),
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        kmesh_version=package_version(),
    )
