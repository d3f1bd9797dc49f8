# SPDX-License-Identifier: Apache-2.0
"""The server of ADS on a Unix socket, for the node's Envoy alone.

It says nothing before the source has its first whole picture: an Envoy that serves already goes on with what
it has. Secrets are asked for here too (Istiod names `sds-grpc`): there are none, and Envoy is told
so at once, lest clusters wait for them for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from runtime import log
from runtime.errors import KmeshError
from runtime.source.envoy.messages import message_class
from runtime.source.istiod.proto.discovery_pb2 import (
    DESCRIPTOR,
    DiscoveryRequest,
)
from runtime.waypoint.ledger import Ledger, Resources
from runtime.waypoint.stand_in import nothing
from runtime.waypoint.stream import Conversation

_ADS = DESCRIPTOR.services_by_name["AggregatedDiscoveryService"].full_name
_SDS = "envoy.service.secret.v3.SecretDiscoveryService"
_SETTLE = 0.1  # seconds without a change, after which a push of Istiod's four types is whole
_LONGEST = 1.0  # seconds after which it goes out in any case
_log = log.get("waypoint")


class AdsServer:
    """Feeds the node's Envoy; make it, and use it, within one event loop.

    Args:
        path: the socket; its owner alone may connect.
    """

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger()
        self.streams = 0
        self.connected = 0
        self._path = path
        self._server: Any = None
        self._wakers: set[asyncio.Event] = set()
        self._latest: Resources | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._first_change = 0.0
        self._current: Conversation | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            KmeshError: the socket cannot be made.
        """
        self._path.unlink(missing_ok=True)
        server = grpc.aio.server()
        handlers: dict[str, dict[str, Any]] = {
            _ADS: {"StreamAggregatedResources": self._serve},
            _SDS: {"StreamSecrets": self._serve_nothing},
        }
        for service, methods in handlers.items():
            made = {
                name: grpc.stream_stream_rpc_method_handler(
                    method,
                    request_deserializer=DiscoveryRequest.FromString,
                    response_serializer=lambda response: response.SerializeToString(),
                )
                for name, method in methods.items()
            }
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, made),))
        try:
            server.add_insecure_port(f"unix:{self._path}")
            await server.start()
            self._path.chmod(0o600)
        except (RuntimeError, OSError) as error:
            await server.stop(None)
            raise KmeshError(f"cannot listen at {self._path}: {error}") from error
        self._server = server

    async def stop(self) -> None:
        """End all streams, and the socket. Idempotent."""
        if self._flush is not None:
            self._flush.cancel()
        if self._server is not None:
            await self._server.stop(0)
            self._server = None
        self._path.unlink(missing_ok=True)

    def put(self, resources: Resources) -> None:
        """Offer what Istiod says now, once it has finished: its pushes come type by type."""
        loop = asyncio.get_running_loop()
        if self._flush is None:
            self._first_change = loop.time()
        else:
            self._flush.cancel()
        self._latest = resources
        wait = min(_SETTLE, self._first_change + _LONGEST - loop.time())
        self._flush = loop.call_later(max(wait, 0), self._take)

    def _take(self) -> None:
        self._flush = None
        if self._latest is not None:
            self.ledger.put(self._latest)
            self._latest = None
            if self._current is not None:
                self._current.idle = False
            self._wake()

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    @property
    def settled(self) -> bool:
        """Whether Envoy was told all there is, and has answered."""
        talk = self._current
        return bool(talk and talk.idle and talk.quiet and self.ledger.whole and not self._flush)

    def versions(self) -> dict[str, str]:
        """What Envoy has accepted: the version by type."""
        accepted = self._current.accepted if self._current else {}
        return {
            sheet.label: accepted[kind]
            for kind, sheet in self.ledger.sheets.items()
            if kind in accepted
        }

    async def _serve(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        talk = Conversation(self.ledger)
        self.streams += 1
        self.connected += 1
        self._current = talk
        waker = asyncio.Event()
        self._wakers.add(waker)
        reader = asyncio.ensure_future(self._read(requests, talk, waker))
        try:
            while not reader.done():
                waker.clear()
                response = talk.next()
                talk.idle = response is None
                if response is not None:
                    yield response
                    continue
                with suppress(TimeoutError):
                    await asyncio.wait_for(waker.wait(), talk.wake_after())
        finally:
            reader.cancel()
            self._wakers.discard(waker)
            self.connected -= 1
            if self._current is talk:
                self._current = None

    async def _read(
        self, requests: AsyncIterator[Any], talk: Conversation, waker: asyncio.Event
    ) -> None:
        try:
            async for request in requests:
                if request.HasField("node"):
                    self.ledger.meet(extensions(request.node))
                talk.hear(request)
                talk.idle = False
                self._wake()  # a refusal concerns every stream
        finally:
            waker.set()

    async def _serve_nothing(
        self, requests: AsyncIterator[Any], _context: Any
    ) -> AsyncIterator[Any]:
        """Secrets: whoever asks for some goes on without."""
        asked: frozenset[str] = frozenset()
        async for request in requests:
            names = frozenset(request.resource_names)
            if names - asked:
                yield nothing(request.type_url, nonce="nothing")
            asked = names


def extensions(node: Any) -> frozenset[str]:
    """The names of all messages that an Envoy can be configured with; its first request tells."""
    wire = message_class("envoy.config.core.v3.Node").FromString(node.SerializeToString())
    return frozenset(url for each in wire.extensions for url in each.type_urls)
