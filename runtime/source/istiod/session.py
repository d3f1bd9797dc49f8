# SPDX-License-Identifier: Apache-2.0
"""One stream: what is sent on it, and what is done with each response.

Requests wait in a short queue that a task of gRPC empties, so nothing here waits for the network
to take them. A response is decoded in slices between which the event loop runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runtime import log
from runtime.errors import KmeshError
from runtime.source.istiod.node import Node
from runtime.source.istiod.proto.discovery_pb2 import (
    DESCRIPTOR,
    DeltaDiscoveryResponse,
    DiscoveryResponse,
)
from runtime.source.istiod.status import StreamStatus
from runtime.source.istiod.wire import BadResourceError, parse

_WAITING_REQUESTS = 1024
_log = log.get("source.istiod")


class Outcome(Protocol):
    """What a response came to."""

    @property
    def refused(self) -> Mapping[str, str]:
        """The reason for each resource that could not be accepted."""


class Subscribed(Protocol):
    """The state of one resource type, which outlives streams.

    `label` stands before a resource's name where people read it.
    """

    @property
    def type_url(self) -> str: ...
    @property
    def label(self) -> str: ...
    def hello(self, *, most: int) -> Any:
        """The first request of a stream, None where there is nothing to ask for yet."""

    async def apply(self, response: Any) -> Any:
        """Take a response; returns its outcome."""

    def answer(self, response: Any, outcome: Any) -> Any:
        """The request that accepts a response, or says what of it is refused."""

    def distrust(self) -> None: ...


Received = Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One of the two ways to talk to Istiod.

    Attributes:
        what: what it brings, for people.
        method: the gRPC method's full path.
        response: the class of its responses.
    """

    what: str
    method: str
    response: Any


_SERVICE = DESCRIPTOR.services_by_name["AggregatedDiscoveryService"].full_name
DELTA = Dialect("workload API", f"/{_SERVICE}/DeltaAggregatedResources", DeltaDiscoveryResponse)
STATE_OF_THE_WORLD = Dialect("ADS", f"/{_SERVICE}/StreamAggregatedResources", DiscoveryResponse)


class StreamError(KmeshError):
    """A stream that is of no more use; another one is opened."""


class Session:
    """The protocol on one stream.

    Args:
        subscriptions: the resource types, with their state from earlier streams.
        dialect: how it is talked.
        node: who we say we are.
        largest_request: bytes that the server takes in one message.
        status: counters to keep.
        received: called with what each response came to.
    """

    def __init__(
        self,
        subscriptions: Sequence[Subscribed],
        *,
        dialect: Dialect = DELTA,
        node: Node,
        largest_request: int,
        status: StreamStatus,
        received: Received,
    ) -> None:
        self._by_type = {each.type_url: each for each in subscriptions}
        self._dialect = dialect
        self._node = node
        self._largest_request = largest_request
        self._status = status
        self._received = received
        self._requests: asyncio.Queue[Any] = asyncio.Queue(_WAITING_REQUESTS)
        self.fruitful = False

    def begin(self) -> None:
        """Queue the subscriptions; the first request says who we are."""
        hellos = [each.hello(most=self._largest_request) for each in self._by_type.values()]
        wanted = [hello for hello in hellos if hello is not None]
        wanted[0].node.CopyFrom(self._node.to_wire())
        for hello in wanted:
            self.send(hello)

    def send(self, request: Any) -> None:
        """Queue a request.

        Raises:
            StreamError: a thousand of them wait already: the server does not read.
        """
        try:
            self._requests.put_nowait(request)
        except asyncio.QueueFull as error:
            raise StreamError("Istiod does not read what it is sent") from error

    def close(self) -> None:
        """Send nothing more: without this, gRPC waits for another request for ever."""
        while not self._requests.empty():
            self._requests.get_nowait()
        self._requests.put_nowait(None)

    async def requests(self) -> AsyncIterator[bytes]:
        """The queued requests, serialized, until the session is closed."""
        while (request := await self._requests.get()) is not None:
            payload: bytes = request.SerializeToString()
            yield payload

    async def receive(self, payload: bytes) -> None:
        """Apply a response and queue the answer to it.

        Raises:
            StreamError: it cannot be told what this response is, so it cannot be answered.
        """
        try:
            response = parse(self._dialect.response, payload)
        except BadResourceError as error:
            raise StreamError(f"Istiod sent a response that is {error}") from error
        del payload  # tens of megabytes, at the first sync
        self._status.responses += 1
        self._status.last_response = time.time()
        subscription = self._by_type.get(response.type_url)
        if subscription is None:
            _log.warning("a response of type %r was not asked for", response.type_url)
            return
        outcome = await subscription.apply(response)
        self.fruitful = True
        self._answer(subscription, response, outcome)
        self._received(subscription, outcome)

    def _answer(self, subscription: Subscribed, response: Any, outcome: Outcome) -> None:
        self.send(subscription.answer(response, outcome))
        if not outcome.refused:
            self._status.acks += 1
            return
        self._status.nacks += 1
        for name, reason in outcome.refused.items():
            _log.error("%s %s is refused: %s", subscription.label, name, reason)
