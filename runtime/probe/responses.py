# SPDX-License-Identifier: Apache-2.0
"""Which way responses go home on the enhanced path, and why: a pure function of the findings.

By the gate, over TCP, everywhere; or within the kernel, past the gate (bpf/home/home.bpf.c), where
that was seen to be sound for whatever client there may be.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from runtime.probe.reliance import falls, lacks
from runtime.probe.verdict import Finding

GATE, KERNEL = "gate", "kernel"
AUTO = "auto"
HOME = "sockmap.home"  # the check of what the kernel's way relies on

# Without these responses are lost, mixed up or pile up, or programs stall: never without them.
NEEDS = (
    "sockops",
    "sk_storage",
    "sockmap.ingress",
    HOME,
    "sockmap.epoll",
    "sockmap.close",
    "sockmap.fionread",
    "sockmap.fionread.ingress",
    "sockmap.flow_control.btf",
)
# Without these some clients or some moments are hurt, which only whoever runs them can rule out.
SOME_NEED = {
    "sockmap.splice.read": "clients that splice(2) from their socket (Go's io.Copy, HAProxy) would stall",
    "sockmap.home.end": "a response whose connection the gate ends right behind it would be cut short",
}
_TOLD = 2  # reasons in a line
REMEDY = "--responses kernel has them go within the kernel where that hurts no client"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesDecision:
    """The way that responses take.

    Attributes:
        way: "gate" or "kernel".
        reasons: why not within the kernel; or, where they go there though that can hurt, whom and why.
        remedy: what would let them go within the kernel, "" where they do, or nothing would.
        warned: they go within the kernel by the user's word, or do not in spite of it.
    """

    way: str
    reasons: tuple[str, ...] = ()
    remedy: str = ""
    warned: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"way": self.way, "reasons": list(self.reasons), "remedy": self.remedy}


def responses_decision(findings: Iterable[Finding], *, wanted: str = AUTO) -> ResponsesDecision:
    """Decide which way responses take.

    Args:
        findings: the prober's.
        wanted: what the user said: "auto" for the kernel's way only where nobody can be hurt,
            "kernel" also where some can, never where any response can be lost in any use.
    """
    if wanted == GATE:
        return ResponsesDecision(way=GATE, reasons=("--responses gate was asked for",))
    by_name = {finding.capability: finding for finding in findings}
    unsound = [name for name in NEEDS if lacks(by_name, name)]
    if unsound:
        remedies = (by_name[name].remedy for name in unsound if name in by_name)
        return ResponsesDecision(
            way=GATE,
            reasons=tuple(lacks(by_name, name) for name in unsound),
            remedy=next(filter(None, remedies), "run `kmesh probe` without --quick"),
            warned=wanted == KERNEL,
        )
    hurt = tuple(
        f"{who}: {why}" for name, who in SOME_NEED.items() if (why := falls(by_name, name))
    )
    if hurt and wanted != KERNEL:
        return ResponsesDecision(way=GATE, reasons=hurt, remedy=REMEDY)
    return ResponsesDecision(way=KERNEL, reasons=hurt, warned=bool(hurt))


def in_words(decision: ResponsesDecision) -> str:
    """One line: the way, and why."""
    told = "; ".join(decision.reasons[:_TOLD])
    more = len(decision.reasons) - _TOLD
    because = (f": {told}" if told else "") + (f" (and {more} more)" if more > 0 else "")
    if decision.way == GATE:
        return f"by the gate{because}"
    return "within the kernel" + (f" (take care{because})" if because else "")
