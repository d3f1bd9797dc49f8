# SPDX-License-Identifier: Apache-2.0
"""One resource type: what is held of it, how it is asked for, what a response changes.

Versions are those of the resources themselves. They are sent when a new stream begins, so that the
server sends only what has changed since, and names what is gone. A resource that was refused keeps
the version of its last good state, so the server offers it again.

Istiod takes requests up to 4 MiB, which the versions of some 40,000 workloads exceed. Then none are
sent, the server sends everything, and what is gone is what its first response does not name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.collector import collector_paused
from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy
from runtime.source.istiod.changes import Changes
from runtime.source.istiod.kinds import Decode, Kind
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryRequest
from runtime.source.istiod.wire import BadResourceError

_WILDCARD = "*"
_CHUNK = 256  # resources between two turns of the event loop: a few milliseconds
_LARGE = 1000  # resources in a response
_INVALID_ARGUMENT = 3  # google.rpc.Code
_TOLD = 20  # refused resources named in one NACK


@dataclass(slots=True)
class Outcome:
    """What a response came to.

    Attributes:
        changes: the good resources and the removals.
        refused: the reason for each resource that this response could not have accepted.
        found: on demand, the aliases of each resource that it brought.
        missing: names that it says do not exist.
    """

    changes: Changes = field(default_factory=Changes)
    refused: dict[str, str] = field(default_factory=dict)
    found: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Batch:
    """A response while it is decoded."""

    decode: Decode
    outcome: Outcome
    versions: dict[str, str] = field(default_factory=dict)
    decoded: list[tuple[str, Service | Workload | Policy]] = field(default_factory=list)


class Subscription:
    """The state of one resource type across streams.

    Args:
        kind: the resource type.
        on_demand: ask for nothing but the names in `wanted`, instead of for everything.
    """

    def __init__(self, kind: Kind, *, on_demand: bool = False) -> None:
        self.kind = kind
        self.on_demand = on_demand
        self.versions: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.wanted: set[str] = set()
        self.synced = on_demand
        self._expects_all = False

    @property
    def type_url(self) -> str:
        return self.kind.type_url

    @property
    def label(self) -> str:
        return self.kind.label

    def hello(self, *, most: int) -> Any:
        """The first request of a stream, of `most` bytes where it would hold versions."""
        request = DeltaDiscoveryRequest(
            type_url=self.kind.type_url, initial_resource_versions=self.versions
        )
        self._expects_all = request.ByteSize() > most
        if self._expects_all:
            request.ClearField("initial_resource_versions")
        if self.on_demand:
            # "Nothing" cannot be said but by subscribing to all and unsubscribing at once.
            request.resource_names_subscribe.extend([_WILDCARD, *sorted(self.wanted)])
            request.resource_names_unsubscribe.append(_WILDCARD)
        return request

    def ask(self, *, add: Iterable[str] = (), drop: Iterable[str] = ()) -> Any:
        """Want more names, or fewer; returns the request that says so."""
        added, dropped = sorted(add), sorted(drop)
        self.wanted.update(added)
        self.wanted.difference_update(dropped)
        return DeltaDiscoveryRequest(
            type_url=self.kind.type_url,
            resource_names_subscribe=added,
            resource_names_unsubscribe=dropped,
        )

    def want_all(self) -> Any:
        """Want everything from now on; returns the request that says so."""
        self.on_demand = False
        return DeltaDiscoveryRequest(
            type_url=self.kind.type_url, resource_names_subscribe=[_WILDCARD]
        )

    def answer(self, response: Any, outcome: Outcome) -> Any:
        """The ACK of a response, or its NACK that names what was refused and why."""
        request = DeltaDiscoveryRequest(type_url=self.kind.type_url, response_nonce=response.nonce)
        if outcome.refused:
            refuse(request, outcome.refused)
        return request

    def distrust(self) -> None:
        """Have everything sent again: what was made of it may not have reached the consumer."""
        self.versions = dict.fromkeys(self.versions, "")

    def refusals(self) -> dict[str, str]:
        """The reason for each resource that is refused now, under the name that people read."""
        return {self._label(name): reason for name, reason in self.refused.items()}

    async def apply(self, response: Any) -> Outcome:
        """Decode a response, letting others run meanwhile; take it over in one step at the end."""
        batch = _Batch(self.kind.decoder(), Outcome(missing=set(response.removed_resources)))
        with collector_paused(when=len(response.resources) > _LARGE):
            for index, resource in enumerate(response.resources):
                if index % _CHUNK == _CHUNK - 1:
                    await asyncio.sleep(0)
                if self.on_demand:
                    batch.outcome.found[resource.name] = tuple(resource.aliases)
                self._decode(resource, batch)
        self._take_over(batch)
        return batch.outcome

    def _decode(self, resource: Any, batch: _Batch) -> None:
        name, version = resource.name, resource.version
        try:
            if not (version and self.versions.get(name) == version):
                batch.decoded.append((name, batch.decode(name, self._payload(name, resource))))
        except BadResourceError as error:
            batch.outcome.refused[name] = str(error)
        else:
            batch.versions[name] = version
            batch.outcome.refused.pop(name, None)

    def _payload(self, name: str, resource: Any) -> bytes:
        if not name:
            raise BadResourceError("it has no name")
        content = resource.resource
        if content.type_url != self.kind.type_url:
            raise BadResourceError(f"its type is {content.type_url!r}")
        value: bytes = content.value
        return value

    def _take_over(self, batch: _Batch) -> None:
        changes, refused = batch.outcome.changes, batch.outcome.refused
        if self._expects_all:
            batch.outcome.missing |= self.versions.keys()
            self._expects_all = False
        for name in batch.outcome.missing - batch.versions.keys() - refused.keys():
            if self.versions.pop(name, None) is not None:
                self.kind.remove(changes, name)
            self._accept(name, changes)
        for name, resource in batch.decoded:
            self.kind.put(changes, name, resource)
        for name in self.refused.keys() & batch.versions.keys() - refused.keys():
            self._accept(name, changes)
        self.versions.update(batch.versions)
        for name, reason in refused.items():
            self.refused[name] = changes.refused[self._label(name)] = reason
        self.synced = True

    def _accept(self, name: str, changes: Changes) -> None:
        if self.refused.pop(name, None) is not None:
            changes.refused[self._label(name)] = None

    def _label(self, name: str) -> str:
        return labelled(self.kind.label, name)


def refuse(request: Any, refused: Mapping[str, str]) -> None:
    """Make a request a NACK."""
    request.error_detail.code = _INVALID_ARGUMENT
    request.error_detail.message = _reasons(refused)


def labelled(label: str, name: str) -> str:
    """A resource's name as people read it."""
    return f"{label} {name if name.isprintable() else repr(name)}"


def _reasons(refused: Mapping[str, str]) -> str:
    told = [f"{name or '(no name)'}: {why}" for name, why in list(refused.items())[:_TOLD]]
    more = len(refused) - len(told)
    return f"{len(refused)} refused: " + "; ".join(told) + (f"; and {more} more" if more else "")
