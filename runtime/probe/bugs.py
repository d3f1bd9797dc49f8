# SPDX-License-Identifier: Apache-2.0
"""Kernel bugs that Kmesh's primitives run into, by upstream version.

A fix reaches each stable branch in its own release: "first fixed in" holds per branch. A branch
between those listed had ended by then and never got it; newer ones than all of them have it from
their start. Vendors backport fixes without changing versions: a hit warns and avoids the primitive,
and the user who knows better overrules it by name (`--ignore-bug NAME`).

Two that are not in the table, as no version of ours can run into them: CVE-2024-38662 (a deadlock
when a program that may not update a socket map deletes from it) is refused by the verifier since
its fix, and the shipped objects load there; since the fix of CVE-2025-40123 programs of several
attach types cannot share a prog_array, and ours never do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from packaging.version import Version

from runtime.probe.kernelrelease import KernelRelease


@dataclass(frozen=True, slots=True)
class Affected:
    """Versions from one on, up to and without another."""

    since: Version
    before: Version

    def __contains__(self, version: Version) -> bool:
        return self.since <= version < self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBug:
    """One bug.

    Attributes:
        name: what `--ignore-bug` takes.
        affected: version ranges, any of which makes a hit.
        primitive: what of BPF has the bug.
        avoids: the capabilities that are not used, and not tried, on an affected kernel.
        tested_by: the capability whose behaviour check decides on a live kernel, "" when only the
            version can tell (memory-safety bugs: trying is the damage).
    """

    name: str
    title: str
    affected: tuple[Affected, ...]
    primitive: str
    avoids: tuple[str, ...]
    consequence: str
    fixed: tuple[str, ...] = ()
    tested_by: str = ""

    def concerns(self, version: Version) -> bool:
        return any(version in one for one in self.affected)


@dataclass(frozen=True, slots=True, kw_only=True)
class BugHit:
    """A known bug that this kernel's version has; `overruled` when the user vouches for it."""

    bug: KnownBug
    version: str
    may_be_backported: bool
    overruled: bool = False

    @property
    def remedy(self) -> str:
        newer = (item for item in self.bug.fixed if Version(item) > Version(self.version))
        fixed = next(newer, "")
        upgrade = f"upgrade the kernel to {fixed} or later" if fixed else "upgrade the kernel"
        vouch = f"--ignore-bug {self.bug.name}"
        return f"{upgrade}; if your vendor has backported the fix: {vouch}"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.bug.name,
            "title": self.bug.title,
            "primitive": self.bug.primitive,
            "avoids": list(self.bug.avoids),
            "consequence": self.bug.consequence,
            "remedy": self.remedy,
            "kernel": self.version,
            "may_be_backported": self.may_be_backported,
            "overruled": self.overruled,
        }


def between(since: str, before: str) -> Affected:
    return Affected(Version(since), Version(before))


def unfixed(*fixed: str, since: str = "4.14") -> tuple[Affected, ...]:
    """The versions without a fix, from the first fixed release of each stable branch.

    Args:
        fixed: such releases, oldest first ("5.10.265", "6.1.183").
        since: the first version that had the bug (4.14 brought sockmap).
    """
    ranges, start = [], since
    for release in fixed:
        ranges.append(between(start, release))
        start = _next_branch(release)
    return tuple(ranges)


def _branch(release: str) -> tuple[int, ...]:
    return Version(release).release[:2]


def _next_branch(release: str) -> str:
    major, minor = _branch(release)
    return f"{major}.{minor + 1}"


_CORK = ("5.10.265", "5.15.216", "6.1.183", "6.6.148", "6.12.101", "6.18.42", "7.1.6")
_POP_DATA = ("5.10.231", "5.15.174", "6.1.120", "6.6.64", "6.12.2")
_BACKLOG = ("5.15.186", "6.1.142", "6.6.94", "6.12.34", "6.15.3")
_REPLACE = ("5.10.236", "5.15.180", "6.1.125", "6.6.67", "6.12.6")

KNOWN: tuple[KnownBug, ...] = (
    KnownBug(
        name="CVE-2026-68284",
        title="use after free when a message is corked",
        affected=unfixed(*_CORK),
        fixed=_CORK,
        primitive="bpf_msg_cork_bytes",
        avoids=("sockmap.cork",),
        consequence="a request head that arrives in pieces is not collected in the kernel: it goes"
        " to the gate",
    ),
    KnownBug(
        name="CVE-2024-56720",
        title="memory corruption when bytes are cut out of a message",
        affected=unfixed(*_POP_DATA),
        fixed=_POP_DATA,
        primitive="bpf_msg_pop_data",
        avoids=("sockmap.respond",),
        consequence="answers (deny, redirect, rate limit) are not made in the kernel: the gate"
        " makes them",
    ),
    KnownBug(
        name="CVE-2025-38154",
        title="use after free of a socket with redirected data waiting",
        affected=unfixed(*_BACKLOG),
        fixed=_BACKLOG,
        primitive="redirects into a socket's ingress",
        avoids=("sockmap.ingress",),
        consequence="responses are not short-cut into the client's socket, and both ends on one"
        " node are not short-cut: TCP and the gate carry them",
    ),
    KnownBug(
        name="CVE-2024-56664",
        title="race between replacing a socket in a map and its close",
        affected=unfixed(*_REPLACE),
        fixed=_REPLACE,
        primitive="replacing an element of a SOCKMAP or SOCKHASH",
        avoids=("sockmap.replace",),
        consequence="sockets are only added and removed, never replaced: a reused slot waits for"
        " the old socket to close",
    ),
    KnownBug(
        name="sockmap-fionread",
        title="FIONREAD is 0 on a socket in a map that has no verdict program",
        affected=(
            between("6.6.128", "6.7"),
            between("6.12.75", "6.13"),
            between("6.18.14", "6.19"),
            # 7.2.13 was measured to be right; where between it was mended is not known.
            between("6.19", "7.2"),
        ),
        fixed=("7.2",),
        primitive="SOCKHASH without sk_skb",
        avoids=(),
        tested_by="sockmap.fionread",
        consequence="nginx and Node stall on enrolled sockets, unless a no-op verdict program is on"
        " the map: Kmesh puts one there",
    ),
    KnownBug(
        name="sockmap-fionread-ingress",
        title="FIONREAD is 0 for data redirected into a socket",
        affected=(between("4.14", "6.2"),),
        primitive="redirects into a socket's ingress",
        avoids=(),
        tested_by="sockmap.fionread",
        consequence="programs that ask FIONREAD before they read (nginx, Node) stall on responses"
        " short-cut into their socket: the gate brings responses home instead",
    ),
)


def hits(
    release: KernelRelease,
    *,
    overrides: frozenset[str] = frozenset(),
    tested: Iterable[str] = (),
) -> tuple[BugHit, ...]:
    """The known bugs that a kernel has by its version.

    Args:
        release: the kernel; without a version nothing is said.
        overrides: names of bugs that the user vouches to be mended.
        tested: capabilities whose behaviour was tried: trying beats versions.
    """
    if release.version is None:
        return ()
    tried, version = frozenset(tested), release.version
    return tuple(
        BugHit(
            bug=bug,
            version=str(version),
            may_be_backported=release.backports,
            overruled=bug.name in overrides,
        )
        for bug in KNOWN
        if bug.concerns(version) and (not bug.tested_by or bug.tested_by not in tried)
    )


def avoided(found: Iterable[BugHit]) -> frozenset[str]:
    """The capabilities that are to be left alone."""
    return frozenset(name for hit in found if not hit.overruled for name in hit.bug.avoids)
