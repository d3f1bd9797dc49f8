# SPDX-License-Identifier: Apache-2.0
"""The behaviour battery: does what the data paths do, in small, and looks whether it comes out right.

One module for each check, which registers itself. Each runs in a process of its own, in a scratch
cgroup and network namespace (`runtime.probe.sandbox`); nothing of it outlives the battery.
"""

from __future__ import annotations

import errno
import importlib
import pkgutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import CHECKS, Check
from runtime.probe.behaviour.judge import from_json, judge, refused, to_json
from runtime.probe.sandbox import Failure, running_jobs
from runtime.probe.verdict import Evidence, Finding, Level, Verdict

# A check gets a little less time than all of them together, to say so itself when it is used up.
_MARGIN = 0.02


@cache
def checks() -> dict[str, Check]:
    """Every check by its capability."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(CHECKS.items()))


def run_battery(
    objects: Path,
    *,
    budget_seconds: float,
    avoid: frozenset[str] = frozenset(),
    known: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
) -> list[Finding]:
    """Try what the paths do on this kernel; free of side effects for the host and this process.

    See `running_battery` for the arguments.

    Returns:
        a finding for each check, by name.
    """
    with running_battery(
        objects, budget_seconds=budget_seconds, avoid=avoid, known=known, only=only
    ) as findings:
        return findings()


@contextmanager
def running_battery(
    objects: Path,
    *,
    budget_seconds: float,
    avoid: frozenset[str] = frozenset(),
    known: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
) -> Iterator[Callable[[], list[Finding]]]:
    """Run the battery beside what the caller does meanwhile.

    Args:
        objects: the directory with `probe/*.bpf.o`.
        budget_seconds: what still runs then is killed and found inconclusive.
        avoid: capabilities not to be tried, as a known bug of this kernel makes trying unsafe; a
            prefix stands for all below it ("sockmap").
        known: capabilities that weaker evidence found present. When it is not empty, a check that
            needs another one of the kernel's facts is not run and finds its own absent.
        only: the capabilities to try, or None for all.

    Yields:
        what waits for the battery's end and returns a finding for each check, by name.
    """
    planned = {
        name: _excuse(check, avoid=avoid, known=known)
        for name, check in checks().items()
        if only is None or name in only
    }
    jobs = {
        name: partial(_job, name, objects, avoid)
        for name, excuse in planned.items()
        if excuse is None
    }
    with running_jobs(jobs, budget_seconds=budget_seconds) as collect:

        def findings() -> list[Finding]:
            answers = collect()
            return [
                _finding(checks()[name], (excuse,) if excuse else _evidence(answers[name]))
                for name, excuse in planned.items()
            ]

        yield findings


def _excuse(check: Check, *, avoid: frozenset[str], known: frozenset[str]) -> Evidence | None:
    """Why a check is not run, or None when it is."""
    shunned = {name for name in (check.capability, check.uses) if _falls_under(name, avoid)}
    if shunned:
        what = f"not tried: a known bug of this kernel makes {min(shunned)} unsafe"
        return Evidence(level=Level.BEHAVIOUR, verdict=Verdict.INCONCLUSIVE, summary=what)
    lacks = check.needs - known
    if known and lacks:
        what = f"it needs {', '.join(sorted(lacks))}, which this kernel does not show"
        return Evidence(level=Level.FACT, verdict=Verdict.ABSENT, summary=what)
    return None


def _falls_under(name: str, prefixes: frozenset[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:end]) in prefixes for end in range(1, len(parts) + 1))


def _job(
    name: str, objects: Path, avoid: frozenset[str], cgroup: Path, deadline: float
) -> list[dict[str, Any]]:
    left = deadline - _MARGIN
    bench = Bench(
        objects=objects,
        cgroup=cgroup,
        deadline=max(left, time.monotonic()),
        ingress=not _falls_under("sockmap.ingress", avoid),
    )
    return to_json(judge(checks()[name], bench))


def _evidence(answer: Any | Failure) -> tuple[Evidence, ...]:
    if not isinstance(answer, Failure):
        return from_json(answer)
    verdict = Verdict.INCONCLUSIVE
    if answer.denied:
        verdict = Verdict.DENIED
    elif answer.errno == errno.ENODEV:  # of a mount: the kernel has no cgroup v2
        verdict = Verdict.ABSENT
    what = refused(answer.reason) if answer.denied else answer.reason
    return (Evidence(level=Level.BEHAVIOUR, verdict=verdict, summary=what, errno=answer.errno),)


def _finding(check: Check, evidence: tuple[Evidence, ...]) -> Finding:
    verdict = evidence[-1].verdict
    fine = verdict is Verdict.PRESENT
    return Finding(
        capability=check.capability,
        verdict=verdict,
        evidence=evidence,
        consequence="" if fine else check.consequence,
        remedy="" if fine else _remedy(check, verdict),
    )


def _remedy(check: Check, verdict: Verdict) -> str:
    if verdict is Verdict.DENIED:
        return "grant CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN (namespaces, mounts)"
    if verdict is Verdict.INCONCLUSIVE:
        return "run `kmesh probe` again on a quieter machine, or look at the evidence"
    return check.remedy


__all__ = ["checks", "run_battery", "running_battery"]
