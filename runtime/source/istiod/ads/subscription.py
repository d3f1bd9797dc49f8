# SPDX-License-Identifier: Apache-2.0
"""One resource type of ADS: what is held of it, how it is asked for, what a response changes.

Istiod sends everything that is asked for whenever anything of it has changed. What has the very bytes
that are held is not decoded again. A resource that is refused keeps its last good state, and so does
one that may be the one that cannot even be told by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from runtime.collector import collector_paused
from runtime.source.envoy.decode import RefusedError, Resource, decode
from runtime.source.istiod.ads.changes import HttpChanges
from runtime.source.istiod.ads.kinds import AdsKind
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryRequest
from runtime.source.istiod.subscription import labelled, refuse
from runtime.source.istiod.wire import BadResourceError

_CHUNK = 64  # resources between two turns of the event loop
_LARGE = 1000  # resources in a response


@dataclass(slots=True)
class Outcome:
    """What a response came to: the good resources and removals, and why others are refused."""

    changes: HttpChanges = field(default_factory=HttpChanges)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Batch:
    """A response while it is decoded."""

    outcome: Outcome = field(default_factory=Outcome)
    payloads: dict[str, bytes] = field(default_factory=dict)
    decoded: dict[str, Resource] = field(default_factory=dict)
    nameless: set[str] = field(default_factory=set)


class StateSubscription:
    """The state of one resource type across streams.

    Args:
        kind: the resource type.
    """

    def __init__(self, kind: AdsKind) -> None:
        self.kind = kind
        self.payloads: dict[str, bytes] = {}
        self.refused: dict[str, str] = {}
        self.wanted: frozenset[str] = frozenset()
        self.allowed = False
        self.answered = False
        self._version = ""
        self._names: dict[bytes, str] = {}  # of what is held, by its bytes
        self._nameless: set[str] = set()

    @property
    def type_url(self) -> str:
        return self.kind.type_url

    @property
    def label(self) -> str:
        return self.kind.label

    @property
    def settled(self) -> bool:
        """Whether all that is asked for was answered, be it with nothing."""
        return self.answered or (self.allowed and not self.kind.wildcard and not self.wanted)

    def hello(self, *, most: int) -> Any:  # noqa: ARG002 - names always fit: they are Istiod's own
        """The first request of a stream; None where it is not time to ask, or nothing is wanted."""
        if not self.allowed or not (self.kind.wildcard or self.wanted):
            return None
        return self._request()

    def allow(self) -> Any:
        """Ask from now on; returns the request, None where one was made before or nothing is wanted."""
        if self.allowed:
            return None
        self.allowed = True
        return self.hello(most=0)

    def want(self, names: Iterable[str]) -> tuple[Any, HttpChanges]:
        """Want exactly these names.

        Returns:
            the request that says so, with an empty nonce so that it is answered whatever is on the
            way, None where nothing has changed; and the removal of what is wanted no longer.
        """
        wanted, before = frozenset(names), self.wanted
        changes = HttpChanges()
        self.allowed = True
        if wanted == before:
            return None, changes
        self.wanted = wanted
        for name in sorted((self.payloads.keys() | self.refused.keys()) - wanted):
            self._remove(name, changes)
        if wanted - before:
            self.answered = False
        return self._request(), changes

    def _request(self, nonce: str = "") -> Any:
        return DiscoveryRequest(
            type_url=self.type_url,
            version_info=self._version,
            resource_names=sorted(self.wanted),
            response_nonce=nonce,
        )

    def answer(self, response: Any, outcome: Outcome) -> Any:
        """The ACK of a response, or its NACK: with the last version that was good, and the reasons."""
        if not outcome.refused:
            self._version = response.version_info
        request = self._request(response.nonce)
        if outcome.refused:
            refuse(request, outcome.refused)
        return request

    def distrust(self) -> None:
        """Decode everything anew: what was made of it may not have reached the consumer."""
        self._names.clear()

    def refusals(self) -> dict[str, str]:
        """The reason for each resource that is refused now, under the name that people read."""
        return {labelled(self.label, name): reason for name, reason in self.refused.items()}

    async def apply(self, response: Any) -> Outcome:
        """Decode a response, letting others run meanwhile; take it over in one step at the end."""
        batch = _Batch()
        with collector_paused(when=len(response.resources) > _LARGE):
            for index, resource in enumerate(response.resources):
                if index % _CHUNK == _CHUNK - 1:
                    await asyncio.sleep(0)
                self._decode(index, resource, batch)
        self._take_over(batch)
        return batch.outcome

    def _decode(self, index: int, resource: Any, batch: _Batch) -> None:
        payload = resource.value
        name = ""
        try:
            self._check_type(resource)
            name, made = self._known(payload) or decode(self.kind.message, payload)
            _refuse_second(name, batch)
        except BadResourceError as error:
            name = name or (error.resource if isinstance(error, RefusedError) else "")
            if not name:
                name = f"number {index + 1}"
                batch.nameless.add(name)
            batch.outcome.refused[name] = str(error)
            return
        if self.kind.wildcard or name in self.wanted:
            batch.payloads[name] = payload
            if made is not None:
                batch.decoded[name] = made

    def _check_type(self, resource: Any) -> None:
        if resource.type_url != self.type_url:
            raise BadResourceError(f"its type is {resource.type_url!r}")

    def _known(self, payload: bytes) -> tuple[str, None] | None:
        """The name of the resource that is held with these very bytes."""
        name = self._names.get(payload)
        return None if name is None else (name, None)

    def _take_over(self, batch: _Batch) -> None:
        changes, refused = batch.outcome.changes, batch.outcome.refused
        for name in self._nameless - refused.keys():
            self._accept(name, changes)
        self._nameless = batch.nameless
        if self.kind.wildcard and not batch.nameless:
            held = self.payloads.keys() | self.refused.keys()
            for name in sorted(held - batch.payloads.keys() - refused.keys()):
                self._remove(name, changes)
        for name, made in batch.decoded.items():
            changes.put(self.kind, name, made)
        for name in batch.payloads.keys() - refused.keys():
            self._accept(name, changes)
        self._hold(batch.payloads)
        for name, reason in refused.items():
            self.refused[name] = reason
            changes.refused[labelled(self.label, name)] = reason
        self.answered = True

    def _hold(self, payloads: dict[str, bytes]) -> None:
        for name, payload in payloads.items():
            self._names.pop(self.payloads.get(name, b""), None)
            self._names[payload] = name
        self.payloads.update(payloads)

    def _remove(self, name: str, changes: HttpChanges) -> None:
        payload = self.payloads.pop(name, None)
        if payload is not None:
            self._names.pop(payload, None)
            changes.put(self.kind, name, None)
        self._accept(name, changes)

    def _accept(self, name: str, changes: HttpChanges) -> None:
        if self.refused.pop(name, None) is not None:
            changes.refused[labelled(self.label, name)] = None


def _refuse_second(name: str, batch: _Batch) -> None:
    if name in batch.payloads:
        raise BadResourceError("it comes twice in one response")
