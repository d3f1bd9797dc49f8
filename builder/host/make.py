# SPDX-License-Identifier: Apache-2.0
"""Objects for one kernel: prebuilt ones where they do as they are, else compiled from the best evidence."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from builder.host.evidence import Target, evidence_hint, find_evidence, hint
from builder.host.judge import Judgement, judge
from builder.host.reasons import HostError, Reason
from builder.objects import MANIFEST, ObjectFile, check_object
from runtime.compile.clang import CompileError, ToolMissingError
from runtime.compile.evidence import Evidence, Kind, compile_from, once
from runtime.errors import KmeshError
from runtime.objects.info import ObjectError

_LACK = "use a kernel that has it (Debian 11 and later, RHEL 9, openEuler 22.03 do), or another image of Kmesh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Objects that do for a kernel.

    Attributes:
        directory: where they are.
        evidence: what they were made from.
        judgement: the kernel's, or its BTF's, word on them.
        renumbered: helpers that have another number there than upstream.
        tried: what was tried before, and why it would not do.
    """

    directory: Path
    objects: tuple[ObjectFile, ...]
    evidence: Evidence
    judgement: Judgement
    renumbered: dict[str, int] = field(default_factory=dict)
    tried: tuple[str, ...] = ()


def make_for(
    target: Target,
    *,
    sources: Path,
    prebuilt: Path | None,
    out: Path,
    scratch: Path,
    say: Callable[[str], None],
    root: Path = Path("/"),
) -> Made:
    """Make objects for a kernel.

    Args:
        target: the kernel.
        sources: the tree of BPF sources.
        prebuilt: objects that are there already.
        out: where the objects go.
        scratch: a directory for what is needed meanwhile.
        say: told what happens.
        root: where the host's files are.

    Raises:
        HostError: nothing that does could be made; with what would mend it.
    """
    evidence = find_evidence(target, root=root)
    if not target.running and not any(each.numbers for each in evidence):
        raise unknown(target)
    tried: list[str] = []
    ways = [Evidence(kind=Kind.PREBUILT, where=str(prebuilt))] if prebuilt else []
    judged: Judgement | None = None
    for each in [*ways, *once(evidence)]:
        say(f"trying {each.kind}: {each.where}")
        renumbered = _place(each, sources=sources, out=out, scratch=scratch)
        objects = _inspected(out)
        judged = judge(target, out)
        # Upstream's numbers on a kernel of which nothing is known are a guess.
        guess = judged.how == "unverified" and not each.numbers
        if judged.paths and not guess:
            return Made(
                directory=out,
                objects=objects,
                evidence=each,
                judgement=judged,
                renumbered=renumbered,
                tried=tuple(tried),
            )
        why = "; ".join(judged.reasons) or "nothing is known of this kernel's helpers"
        tried.append(f"{each.kind}: {why}")
        say(f"it will not do: {why}")
    if judged is not None and judged.how == "unverified":
        raise unknown(target)
    raise _lacking(judged, tried)


def unknown(target: Target) -> HostError:
    """Nothing tells of this kernel: what is made for it would be a guess."""
    said = f"nothing tells of the kernel {target.release}, and what is made for it would be a guess"
    return HostError(Reason.NO_EVIDENCE, said, hint=evidence_hint(target))


def _place(evidence: Evidence, *, sources: Path, out: Path, scratch: Path) -> dict[str, int]:
    shutil.rmtree(out, ignore_errors=True)
    if evidence.kind is Kind.PREBUILT:
        shutil.copytree(evidence.where, out)
        return {}
    try:
        return compile_from(evidence, sources, out, headers=scratch / evidence.kind)[1]
    except ToolMissingError as error:
        no_clang = "clang" in str(error) or "llvm-strip" in str(error)
        reason = Reason.NO_COMPILER if no_clang else Reason.NO_HEADERS
        raise HostError(reason, str(error), hint=error.hint) from error
    except CompileError as error:
        raise HostError(Reason.DOES_NOT_COMPILE, str(error), hint=error.hint) from error


def _inspected(out: Path) -> tuple[ObjectFile, ...]:
    paths = sorted(out.glob("*/*.bpf.o"))
    names = [str(path.relative_to(out)) for path in paths]
    try:
        found = tuple(
            check_object(path, name, load=False) for path, name in zip(paths, names, strict=True)
        )
    except ObjectError as error:
        raise HostError(Reason.DOES_NOT_COMPILE, str(error), hint=error.hint) from error
    if not found or not (out / MANIFEST).is_file():
        raise HostError(Reason.DOES_NOT_COMPILE, f"there are no objects in {out}", hint=hint())
    return found


def _lacking(judged: Judgement | None, tried: Sequence[str]) -> KmeshError:
    refused = judged is not None and judged.how == "loaded"
    reason = Reason.REFUSED_BY_VERIFIER if refused else Reason.KERNEL_LACKS
    remedy = "; ".join(judged.remedies) if judged and judged.remedies else _LACK
    return HostError(
        reason, "no objects do for this kernel: " + " | ".join(tried), hint=f"{remedy}; {hint()}"
    )
