# SPDX-License-Identifier: Apache-2.0
"""A delta ADS server for tests, over real gRPC: it does what Istiod does, and worse when told to.

It keeps a world of resources. A stream is told, for each type, what differs from what the client
said it holds; a change of the world is pushed to every stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
import grpc.aio

from runtime.source.istiod.proto.discovery_pb2 import (
    DESCRIPTOR,
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from runtime.source.istiod.wire import ADDRESS_TYPE

SERVICE = DESCRIPTOR.services_by_name["AggregatedDiscoveryService"].full_name


@dataclass
class Stored:
    version: str
    payload: bytes
    aliases: tuple[str, ...] = ()


@dataclass
class Stream:
    """One client's stream: what it asked and what it was sent."""

    metadata: dict[str, str]
    requests: list[Any] = field(default_factory=list)
    responses: list[Any] = field(default_factory=list)
    known: dict[str, dict[str, str]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    wildcard: dict[str, bool] = field(default_factory=dict)
    outbox: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    def hello(self, type_url: str) -> Any:
        """The first request for a type."""
        return next(each for each in self.requests if each.type_url == type_url)

    @property
    def acks(self) -> list[Any]:
        return [r for r in self.requests if r.response_nonce and not r.HasField("error_detail")]

    @property
    def nacks(self) -> list[Any]:
        return [r for r in self.requests if r.HasField("error_detail")]


class XdsServer:
    """The server; `world[type_url][name]` is what there is."""

    def __init__(self) -> None:
        self.world: dict[str, dict[str, Stored]] = {}
        self.streams: list[Stream] = []
        self.open: list[Stream] = []
        self.authorize: Callable[[dict[str, str]], bool] = lambda _: True
        self.host, self.port = "127.0.0.1", 0
        self._nonces = count(1)
        self._changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    async def start(self, *, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listen on loopback, on the same port as the last time."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.method_handlers_generic_handler(SERVICE, self._methods())
        self._server.add_generic_rpc_handlers((handler,))
        address = f"{self.host}:{self.port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        await self._server.start()

    def _methods(self) -> dict[str, Any]:
        method = grpc.stream_stream_rpc_method_handler(
            self._serve, request_deserializer=DeltaDiscoveryRequest.FromString
        )
        return {"DeltaAggregatedResources": method}

    async def stop(self) -> None:
        """Die at once, as a killed process would."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def drop(self) -> None:
        """End every open stream and stay there."""
        for stream in list(self.open):
            stream.outbox.put_nowait(None)
        await self.until(lambda: not self.open)

    def put(
        self, type_url: str, name: str, message: Any, *, version: str, aliases: tuple[str, ...] = ()
    ) -> None:
        """Store a resource; `push` makes it known."""
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        self.world.setdefault(type_url, {})[name] = Stored(version, payload, aliases)

    def remove(self, type_url: str, name: str) -> None:
        del self.world[type_url][name]

    def push(self) -> None:
        """Tell every open stream what has changed, one response a type."""
        for stream in self.open:
            for type_url in stream.known:
                self._push_type(stream, type_url, always=False)

    def send(self, payload: bytes) -> None:
        """Send bytes as they are to every open stream."""
        for stream in self.open:
            stream.outbox.put_nowait(payload)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to be true of what the clients did."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[bytes]:
        metadata = dict(context.invocation_metadata())
        stream = Stream(metadata)
        self.streams.append(stream)
        if not self.authorize(metadata):
            await self._notify()
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        self.open.append(stream)
        reader = asyncio.ensure_future(self._read(stream, requests))
        try:
            while (payload := await stream.outbox.get()) is not None:
                yield payload
        finally:
            reader.cancel()
            self.open.remove(stream)
            await asyncio.shield(self._notify())

    async def _read(self, stream: Stream, requests: AsyncIterator[Any]) -> None:
        async for request in requests:
            stream.requests.append(request)
            self._answer(stream, request)
            await self._notify()

    def _answer(self, stream: Stream, request: Any) -> None:
        kind = request.type_url
        first = kind not in stream.known
        if first:
            stream.known[kind] = dict(request.initial_resource_versions)
            stream.names[kind] = set()
            # An empty first subscription is the wildcard.
            stream.wildcard[kind] = not request.resource_names_subscribe
        turned = "*" in request.resource_names_subscribe and not stream.wildcard[kind]
        if "*" in request.resource_names_subscribe:
            stream.wildcard[kind] = True
        if "*" in request.resource_names_unsubscribe:
            stream.wildcard[kind] = False
        asked = set(request.resource_names_subscribe) - {"*"}
        stream.names[kind] |= asked
        stream.names[kind] -= set(request.resource_names_unsubscribe)
        if first or asked or turned:
            self._push_type(stream, kind, always=True, asked=asked)

    def _push_type(
        self, stream: Stream, type_url: str, *, always: bool, asked: AbstractSet[str] = frozenset()
    ) -> None:
        there, known = self._visible(stream, type_url), stream.known[type_url]
        found = {name for each in there.values() for name in each.aliases} | set(there)
        removed = sorted((known.keys() - there.keys()) | (asked - found))
        changed = {n: each for n, each in there.items() if known.get(n, None) != each.version}
        if not (removed or changed or always):
            return
        stream.known[type_url] = {name: each.version for name, each in there.items()}
        response = DeltaDiscoveryResponse(
            type_url=type_url, nonce=f"{type_url}/{next(self._nonces)}", removed_resources=removed
        )
        for name, each in changed.items():
            resource = response.resources.add(
                name=name, version=each.version, aliases=list(each.aliases)
            )
            resource.resource.type_url = type_url
            resource.resource.value = each.payload
        stream.responses.append(response)
        stream.outbox.put_nowait(response.SerializeToString())

    def _visible(self, stream: Stream, type_url: str) -> dict[str, Stored]:
        there = self.world.get(type_url, {})
        if stream.wildcard[type_url] or type_url != ADDRESS_TYPE:
            return dict(there)
        wanted = stream.names[type_url]
        return {n: each for n, each in there.items() if wanted & {n, *each.aliases}}
