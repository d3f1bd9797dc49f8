# SPDX-License-Identifier: Apache-2.0
"""One stream: what is sent on it, and what is done with each response.

Requests wait in a short queue that a task of gRPC empties, so nothing here waits for the network
to take them. A response is decoded in slices between which the event loop runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from runtime import log
from runtime.errors import KmeshError
from runtime.source.istiod.node import Node
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from runtime.source.istiod.status import IstiodStatus
from runtime.source.istiod.subscription import Outcome, Subscription
from runtime.source.istiod.wire import BadResourceError, parse

_WAITING_REQUESTS = 1024
_log = log.get("source.istiod")
Received = Callable[[Subscription, Outcome], None]


class StreamError(KmeshError):
    """A stream that is of no more use; another one is opened."""


class Session:
    """The protocol on one stream.

    Args:
        subscriptions: the resource types, with their state from earlier streams.
        node: who we say we are.
        largest_request: bytes that the server takes in one message.
        status: counters to keep.
        received: called with what each response came to.
    """

    def __init__(
        self,
        subscriptions: Sequence[Subscription],
        *,
        node: Node,
        largest_request: int,
        status: IstiodStatus,
        received: Received,
    ) -> None:
        self._by_type = {each.kind.type_url: each for each in subscriptions}
        self._node = node
        self._largest_request = largest_request
        self._status = status
        self._received = received
        self._requests: asyncio.Queue[Any] = asyncio.Queue(_WAITING_REQUESTS)
        self.fruitful = False

    def begin(self) -> None:
        """Queue the subscriptions; the first request says who we are."""
        for index, subscription in enumerate(self._by_type.values()):
            hello = subscription.hello(most=self._largest_request)
            if index == 0:
                hello.node.CopyFrom(self._node.to_wire())
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
            yield DeltaDiscoveryRequest.SerializeToString(request)

    async def receive(self, payload: bytes) -> None:
        """Apply a response and queue the answer to it.

        Raises:
            StreamError: it cannot be told what this response is, so it cannot be answered.
        """
        try:
            response = parse(DeltaDiscoveryResponse, payload)
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
        self._answer(subscription, response.nonce, outcome)
        self._received(subscription, outcome)

    def _answer(self, subscription: Subscription, nonce: str, outcome: Outcome) -> None:
        self.send(subscription.answer(nonce, outcome))
        if not outcome.refused:
            self._status.acks += 1
            return
        self._status.nacks += 1
        for name, reason in outcome.refused.items():
            _log.error("%s %s is refused: %s", subscription.kind.label, name, reason)
