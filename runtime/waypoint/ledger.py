# SPDX-License-Identifier: Apache-2.0
"""What the node's Envoy is offered, what of it it has accepted, and what it refuses.

A resource that is refused is replaced by its last good version, or left out where there was none, until
Istiod sends another. Where a refusal names no resource, those that are new are offered one at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from runtime import log
from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES, type_url
from runtime.source.istiod.wire import BadResourceError
from runtime.waypoint.adapt import adapt

CDS, EDS, LDS, RDS = map(type_url, (CLUSTER, ENDPOINTS, LISTENER, ROUTES))
LABELS = {CDS: "cluster", EDS: "endpoints", LDS: "listener", RDS: "route table"}
_KINDS = {CDS: CLUSTER, EDS: ENDPOINTS, LDS: LISTENER, RDS: ROUTES}
_LONGEST = 500  # characters of a reason
_log = log.get("waypoint")

Resources = Mapping[str, Mapping[str, bytes]]  # type URL → name → message


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why Envoy does not take a resource, and which version of it that was about."""

    payload: bytes
    reason: str


@dataclass(slots=True)
class Sheet:
    """One resource type.

    Attributes:
        offered: what Istiod says, as Envoy is to have it.
        good: what Envoy has accepted.
        refused: what it has not.
        singly: what is to be offered one at a time.
        nacks: how often it refused.
    """

    label: str
    offered: dict[str, bytes] = field(default_factory=dict)
    good: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    singly: list[str] = field(default_factory=list)
    nacks: int = 0

    def offer(self, resources: Mapping[str, bytes]) -> None:
        self.offered = dict(resources)
        for name in [n for n, each in self.refused.items() if resources.get(n) != each.payload]:
            del self.refused[name]
        for name in self.good.keys() - resources.keys():
            del self.good[name]
        self.singly = [name for name in self.singly if name in resources]

    def effective(self, *, insist: bool = False) -> dict[str, bytes]:
        """What is to be sent now.

        Args:
            insist: also what is refused and was not good before as far as is known here: an Envoy that holds
                an earlier version of it would take its absence for its removal.
        """
        made = {}
        for name, payload in self.offered.items():
            use: bytes | None = payload
            if name in self.refused or name in self.singly[1:]:
                use = self.good.get(name, payload if insist else None)
            if use is not None:
                made[name] = use
        return made

    def accept(self, sent: Mapping[str, bytes]) -> None:
        """Envoy took these."""
        for name, payload in sent.items():
            if name in self.offered:
                self.good[name] = payload
            if name in self.refused and self.refused[name].payload == payload:
                del self.refused[name]
        if self.singly and self.singly[0] in sent:
            self.singly.pop(0)

    def keeps_back(self, name: str, *, holds: bool) -> bool:
        """Whether nothing is to be sent for a name: its turn comes, or Envoy may hold a good version of it."""
        return name in self.singly or (holds and name in self.refused)

    def refuse(
        self, sent: Mapping[str, bytes], reason: str, *, named: bool, singly: bool
    ) -> list[str]:
        """Envoy did not take all of these.

        Args:
            sent: what was in the response.
            reason: what it says of it.
            named: it tells which it is about, as it does for clusters and listeners; it took all others.
            singly: which it is about may be found out by sending fewer.

        Returns:
            which it is about; none where that is to be found out.
        """
        self.nacks += 1
        reason = " ".join(reason.split())
        new = [name for name, payload in sent.items() if self.good.get(name) != payload]
        culprits = _told(new, reason) if named else []
        if culprits:
            self.accept({name: sent[name] for name in sent.keys() - set(culprits)})
        elif len(new) == 1 or not singly:
            culprits = new
        for name in culprits:
            own = reason[max(reason.find(f"{name}: "), 0) :] if len(culprits) > 1 else reason
            self.refused[name] = Refusal(sent[name], own[:_LONGEST])
            if self.singly[:1] == [name]:
                self.singly.pop(0)
        if not culprits:
            self.singly = sorted(new)
        return culprits


def _told(names: Collection[str], reason: str) -> list[str]:
    """Those that a reason is about: "Error adding/updating cluster(s) NAME: why, NAME: why"."""
    told = []
    for name in sorted(names, key=len, reverse=True):  # one name may be a part of another
        if f"{name}: " in reason:
            told.append(name)
            reason = reason.replace(f"{name}: ", "")
    return told


class Ledger:
    """All four types."""

    def __init__(self) -> None:
        self.sheets = {kind: Sheet(label) for kind, label in LABELS.items()}
        self.whole = False
        self._resources: Resources = {}
        self._has: frozenset[str] = frozenset()
        self._adapted: dict[bytes, bytes | None] = {}
        self.unreadable: dict[str, str] = {}

    def put(self, resources: Resources) -> None:
        """Offer what Istiod says now: all of it."""
        self._resources = resources
        self.whole = True
        self._offer()

    def meet(self, has: Collection[str]) -> None:
        """Learn what the Envoy at hand can be configured with: another takes what this one did not."""
        if frozenset(has) == self._has:
            return
        self._has = frozenset(has)
        self._adapted.clear()
        for sheet in self.sheets.values():
            sheet.refused.clear()
            sheet.good.clear()
            sheet.singly.clear()
        self._offer()

    def _offer(self) -> None:
        adapted: dict[bytes, bytes | None] = {}
        self.unreadable = {}
        for kind, sheet in self.sheets.items():
            offered = {}
            for name, payload in self._resources.get(kind, {}).items():
                made = self._adapt(kind, name, payload)
                adapted[payload] = made
                if made is not None:
                    offered[name] = made
            sheet.offer(offered)
        self._adapted = adapted

    def _adapt(self, kind: str, name: str, payload: bytes) -> bytes | None:
        if payload in self._adapted:
            return self._adapted[payload]
        try:
            return adapt(_KINDS[kind], payload, has=self._has)
        except BadResourceError as error:
            _log.error("%s %s stays away from the waypoint: %s", LABELS[kind], name, error)
            self.unreadable[f"{LABELS[kind]} {name}"] = str(error)
            return None

    def refusals(self) -> dict[str, str]:
        """Resource → why Envoy does not take it."""
        told = dict(self.unreadable)
        for sheet in self.sheets.values():
            told |= {f"{sheet.label} {n}": each.reason for n, each in sheet.refused.items()}
        return told
