# SPDX-License-Identifier: Apache-2.0
"""Whether sockets of this node are short-cut past TCP: what that takes, and what it costs whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime import log
from runtime.errors import KmeshError
from runtime.kernel.accelerate import BYPASS, GROUP, Accelerator, remove
from runtime.kernel.datapath import DataPath
from runtime.probe.mode import lacking
from runtime.probe.reliance import falls, lacks
from runtime.probe.verdict import Finding

_log = log.get("launch")

# Without these bytes are lost, piled up or out of order, or programs stall: never without them.
# What it reads of the kernel (fields.accelerate.*) is in BTF, or in what stands in for it.
NEEDS = (
    "sockops",
    "sk_storage",
    "sockmap.ingress",
    "sockmap.epoll",
    "sockmap.split",
    "sockmap.splice",
    "sockmap.close",
    "sockmap.fionread",
    "sockmap.fionread.ingress",
    "sockmap.flow_control.btf",
    "sockmap.flow_control.shortcut",
)
# Without these some programs stall, which only whoever runs them can rule out.
SOME_NEED = {
    "sockmap.splice.read": "relays that splice(2) from sockets (Go's io.Copy, HAProxy) would stall",
}
# Beside the enhanced path: without it the gate gives every answer that needs no endpoint.
RESPOND = "sockmap.respond"
HINT = "--acceleration turns it on where no such program runs"


def accelerate_decision(
    findings: Iterable[Finding], *, wanted: bool | None = None, path: str = "compat"
) -> tuple[bool, str]:
    """Decide whether same-node acceleration is to run: a pure function.

    Args:
        findings: the prober's.
        wanted: what the user said; None to have it only where nobody can be hurt.
        path: the path that runs.

    Returns:
        whether it is to run, and why not, or what to keep in mind if it does ("" for nothing).
    """
    if wanted is False:
        return False, "turned off (--no-acceleration)"
    by_name = {finding.capability: finding for finding in findings}
    reasons = [why for name in NEEDS if (why := lacks(by_name, name))]
    if why := lacking(by_name.values(), GROUP if path == "compat" else BYPASS):
        reasons.append(why)
    if reasons:
        return False, "; ".join(reasons)
    hurt = [f"{who}: {why}" for name, who in SOME_NEED.items() if (why := falls(by_name, name))]
    if hurt and wanted is None:
        return False, f"{'; '.join(hurt)}; {HINT}"
    return True, "; ".join(hurt)


class Acceleration:
    """A data path's enrolment, and after it the acceleration's; where there is none, the reason.

    Args:
        path: the data path.
        objects: the directory of compiled objects.
        pins: where the data path is pinned.
        findings: the prober's.
        wanted: what the user said, if anything.
        name: the path's.

    Raises:
        KmeshError: it was insisted on, and cannot be had.
    """

    def __init__(
        self,
        path: DataPath,
        *,
        objects: Path,
        pins: Path,
        findings: Iterable[Finding],
        wanted: bool | None,
        name: str = "compat",
    ) -> None:
        self._path = path
        self._pins = pins
        self._beside = name
        self._accelerator: Accelerator | None = None
        self._unfit = ""  # network namespaces, and why
        self._unanswered = "not on this path"
        findings = list(findings)
        on, self._reason = accelerate_decision(findings, wanted=wanted, path=name)
        if wanted and not on:
            raise _refusal(self._reason)
        if on:
            self._open(objects, must=bool(wanted))
        if self._accelerator is None:
            remove(pins)  # a daemon before this one may have had it
        if name != "compat":
            self._unanswered = lacks({each.capability: each for each in findings}, RESPOND)
            path.answer_here(answers=self._answers)
        _log.info("%s", self.in_words())

    @property
    def _answers(self) -> bool:
        """Whether the kernel gives answers that need no endpoint."""
        return self._accelerator is not None and not self._unanswered

    def _open(self, objects: Path, *, must: bool) -> None:
        try:
            enhanced = None if self._beside == "compat" else self._path
            self._accelerator = Accelerator.open(objects, pins=self._pins, enhanced=enhanced)
            for cgroup in self._path.cgroups:
                self._accelerator.enroll_cgroup(cgroup)
            self._follow_namespaces(follow=bool(self._path.namespaces))
        except KmeshError as error:
            self._accelerator, self._reason = None, str(error)
            if must:
                raise _refusal(self._reason) from error

    @property
    def cgroups(self) -> list[Path]:
        return self._path.cgroups

    def enroll_cgroup(self, path: Path) -> None:
        """Manage a cgroup; that it cannot be accelerated is no reason not to."""
        self._path.enroll_cgroup(path)
        if self._accelerator is not None:
            try:
                self._accelerator.enroll_cgroup(path)
            except KmeshError as error:
                _log.warning("%s is managed, but not accelerated: %s", path, error)

    def release_cgroup(self, path: Path) -> None:
        if self._accelerator is not None:
            self._accelerator.release_cgroup(path)
        self._path.release_cgroup(path)

    @property
    def namespaces(self) -> list[int]:
        return self._path.namespaces

    def enroll_netns(self, cookie: int) -> None:
        """Manage a network namespace; that it cannot be accelerated is no reason not to."""
        self._path.enroll_netns(cookie)
        self._follow_namespaces(follow=True)

    def release_netns(self, cookie: int) -> None:
        self._path.release_netns(cookie)
        if not self._path.namespaces:
            self._follow_namespaces(follow=False)

    def _follow_namespaces(self, *, follow: bool) -> None:
        if self._accelerator is None:
            return
        self._unfit = ""
        try:
            if not self._accelerator.follow_namespaces(follow=follow) and follow:
                self._unfit = "this kernel does not tell such programs the namespace (before 5.15)"
        except KmeshError as error:
            self._unfit = str(error)
        if self._unfit:
            _log.warning("network namespaces are managed, but not accelerated: %s", self._unfit)

    def status(self) -> dict[str, Any]:
        """Whether it runs, why not or what to keep in mind, and what it did."""
        facts: dict[str, Any] = {"on": self._accelerator is not None, "reason": self._reason}
        if self._accelerator is not None:
            facts |= {"namespaces": self._unfit, **asdict(self._accelerator.counters())}
            facts |= {"answers": self._answers, "unanswered": self._unanswered}
        return facts

    def in_words(self) -> str:
        state = "on" if self._accelerator is not None else "off"
        if self._answers:
            state += ", answers by the kernel"
        return f"same-node acceleration: {state}" + (f" ({self._reason})" if self._reason else "")

    def close(self) -> None:
        """Let go; what is pinned works on. Idempotent."""
        if self._accelerator is not None:
            self._accelerator.close()
            self._accelerator = None

    def destroy(self) -> None:
        """Take it away; connections that are open go on over TCP. Idempotent."""
        self.close()
        remove(self._pins)


def _refusal(reason: str) -> KmeshError:
    return KmeshError(
        f"acceleration was asked for (--acceleration) and cannot be had here: {reason}",
        hint="`kmesh probe` tells more; without --acceleration everything else runs",
    )
