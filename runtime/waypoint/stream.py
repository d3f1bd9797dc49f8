# SPDX-License-Identifier: Apache-2.0
"""One Envoy's stream of ADS, state of the world: what it is told next.

Make before break: clusters (with those that are to go) and their endpoints, then listeners and routes,
and only then without the clusters that nothing refers to any more. Envoy acknowledges clusters when they are
warm, for which it needs their endpoints; listeners and routes wait for that, though not for ever.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runtime import log
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryResponse
from runtime.waypoint.ledger import CDS, EDS, LDS, RDS, Ledger, Sheet
from runtime.waypoint.stand_in import nothing, stand_in

WARM_SECONDS = 15.0  # as long as routes wait for clusters that do not get warm
_WILDCARD = (CDS, LDS)
_ORDER = (CDS, EDS, LDS, RDS)
_log = log.get("waypoint")


@dataclass(slots=True)
class Watch:
    """A type that Envoy has asked for.

    Attributes:
        names: what it wants; all there are for clusters and listeners.
        asked: names that it is to be sent whatever it has.
        due: it is to be answered in any case.
        sent: what it was sent last, by name.
        nonce: of the last response.
        pending: what that response brought, until it is acknowledged.
        since: when it was sent.
        holds: it had resources of this type before this stream, which ones is not known.
    """

    names: frozenset[str] = frozenset()
    asked: set[str] = field(default_factory=set)
    due: bool = True
    sent: dict[str, bytes] = field(default_factory=dict)
    nonce: str = ""
    pending: dict[str, bytes] | None = None
    since: float = 0.0
    holds: bool = False


class Conversation:
    """What was asked and told on one stream; pure but for the clock.

    Args:
        ledger: what there is to tell.
        clock: seconds.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._watches: dict[str, Watch] = {}
        self._count = 0
        self.idle = False  # kept by who speaks: there was nothing more to say
        self.accepted: dict[str, str] = {}  # type → version

    def hear(self, request: Any) -> None:
        """Take a request: a subscription, an ACK, or a NACK."""
        kind, names = request.type_url, frozenset(request.resource_names)
        watch = self._watches.get(kind)
        if watch is None or not request.response_nonce:
            holds = bool(request.version_info)
            self._watches[kind] = Watch(names=names, asked=set(names), holds=holds)
            return
        if request.response_nonce != watch.nonce:
            return  # about an earlier response: another request follows
        self._settle(kind, watch, request)
        if kind not in _WILDCARD:
            watch.due |= kind not in _ORDER and bool(names - watch.names)
            watch.asked |= names - watch.names
            watch.names = names
            for name in watch.sent.keys() - names:
                del watch.sent[name]

    def _settle(self, kind: str, watch: Watch, request: Any) -> None:
        pending, watch.pending = watch.pending, None
        sheet = self._ledger.sheets.get(kind)
        if pending is None or sheet is None:
            return
        if not request.HasField("error_detail"):
            sheet.accept(pending)
            self.accepted[kind] = request.version_info
            return
        self._refused(kind, watch, pending, request.error_detail.message)
        for name, payload in pending.items():  # what it has of these is what it had before
            if name in sheet.good:
                watch.sent[name] = sheet.good[name]
            elif not watch.holds or name not in sheet.refused:
                watch.sent.pop(name, None)
            else:
                watch.sent[name] = payload

    def _refused(self, kind: str, watch: Watch, pending: dict[str, bytes], reason: str) -> None:
        sheet = self._ledger.sheets[kind]
        before = set(sheet.refused)
        whole = kind in _WILDCARD
        culprits = sheet.refuse(pending, reason, named=whole, singly=not (whole and watch.holds))
        for name in culprits:
            if name in before:
                continue
            kept = "its last good version stays" if name in sheet.good else "as it was before"
            _log.error(
                "the waypoint's Envoy refuses %s %s (%s): %s",
                sheet.label,
                name,
                kept,
                sheet.refused[name].reason,
            )
        if not culprits:
            _log.warning(
                "the waypoint's Envoy refuses one of %d new %s resources: trying each by itself: %s",
                len(sheet.singly),
                sheet.label,
                " ".join(reason.split()),
            )

    def next(self) -> Any:
        """The next response; None where there is nothing to say now."""
        for kind, watch in self._watches.items():
            if kind not in _ORDER and watch.due:
                _log.warning("the waypoint's Envoy asks for %s, which is not followed here", kind)
                self._count += 1
                watch.nonce, watch.due = str(self._count), False
                return nothing(kind, nonce=watch.nonce)
        if not self._ledger.whole:
            return None
        for kind in _ORDER:
            response = self._turn(kind, last=False)
            if response is not None:
                return response
            if self._must_wait(kind):
                return None
        return self._turn(CDS, last=True)

    def wake_after(self) -> float | None:
        """Seconds until there may be something to say without anything happening."""
        watch = self._watches.get(CDS)
        if watch is None or watch.pending is None:
            return None
        left = watch.since + WARM_SECONDS - self._clock()
        return left if left > 0 else None

    def _must_wait(self, kind: str) -> bool:
        """Whether what comes after a type waits for its acknowledgement; endpoints do not."""
        watch = self._watches.get(kind)
        waits = watch is not None and watch.pending is not None and not self._is_overdue(watch)
        return waits and kind != CDS

    def _is_overdue(self, watch: Watch) -> bool:
        return self._clock() - watch.since >= WARM_SECONDS

    def _clusters_are_warm(self) -> bool:
        watch = self._watches.get(CDS)
        return watch is None or watch.pending is None or self._is_overdue(watch)

    def _turn(self, kind: str, *, last: bool) -> Any:
        watch = self._watches.get(kind)
        if watch is None or (watch.pending is not None and not self._is_overdue(watch)):
            return None
        if kind in (LDS, RDS) and not self._clusters_are_warm():
            return None
        sheet = self._ledger.sheets[kind]
        return (
            self._all(kind, watch, sheet, last=last)
            if kind in _WILDCARD
            else self._some(kind, watch, sheet)
        )

    def _all(self, kind: str, watch: Watch, sheet: Sheet, *, last: bool) -> Any:
        wanted = sheet.effective(insist=watch.holds)
        if kind == CDS and not last:
            wanted |= {
                n: p for n, p in watch.sent.items() if n not in wanted and n not in sheet.refused
            }
        if wanted == watch.sent and not watch.due:
            return None
        if kind == CDS and (endpoints := self._watches.get(EDS)):
            # A cluster that is made anew waits for its endpoints to be told anew.
            changed = any(watch.sent.get(n, p) != p for n, p in wanted.items())
            if changed:
                endpoints.asked |= endpoints.names
        watch.sent = dict(wanted)
        return self._respond(kind, watch, wanted)

    def _some(self, kind: str, watch: Watch, sheet: Sheet) -> Any:
        there, sending = sheet.effective(), {}
        for name in watch.names:
            # What is on its way out is still referred to, until Envoy was told otherwise.
            payload = there.get(name) or watch.sent.get(name)
            if payload is None and sheet.keeps_back(name, holds=watch.holds):
                continue
            if payload is None:
                payload = stand_in(kind, name, self._why_not(sheet, name))
            if payload is not None and (name in watch.asked or watch.sent.get(name) != payload):
                sending[name] = payload
        if not sending and not watch.due:
            watch.asked.clear()
            return None
        watch.asked.clear()
        watch.sent |= sending
        return self._respond(kind, watch, sending)

    @staticmethod
    def _why_not(sheet: Sheet, name: str) -> str:
        if name in sheet.refused:
            return f"the waypoint's Envoy refuses {sheet.label} {name}"
        return f"the control plane has sent no {sheet.label} {name}"

    def _respond(self, kind: str, watch: Watch, resources: dict[str, bytes]) -> Any:
        self._count += 1
        watch.nonce, watch.due = str(self._count), False
        watch.pending, watch.since = resources, self._clock()
        digest = hashlib.sha256()
        for name in sorted(watch.sent):
            digest.update(name.encode() + b"\0" + watch.sent[name])
        response = DiscoveryResponse(
            version_info=digest.hexdigest()[:16], type_url=kind, nonce=watch.nonce
        )
        for name in sorted(resources):
            response.resources.add(type_url=kind, value=resources[name])
        return response

    @property
    def quiet(self) -> bool:
        """Whether Envoy has acknowledged everything that there is."""
        return all(each.pending is None for each in self._watches.values())
