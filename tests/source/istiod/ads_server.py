# SPDX-License-Identifier: Apache-2.0
"""State of the world beside the delta stream, on one server, as Istiod has it.

What decides whether a request is answered is Istiod's `ShouldRespond` (pilot/pkg/xds/delta.go, ads.go): an
empty nonce is always answered, a stale one never, no names ends a watch of a type that is asked for by name, an
answer with more names than before is answered with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
import grpc.aio

from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES, type_url
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from tests.source.istiod.xds_server import XdsServer

CDS, EDS, LDS, RDS = map(type_url, (CLUSTER, ENDPOINTS, LISTENER, ROUTES))
WILDCARD = {CDS, LDS}


@dataclass
class Watch:
    names: frozenset[str]
    nonce: str = ""


@dataclass
class AdsStream:
    """One client's stream: what it asked and what it was sent."""

    metadata: dict[str, str]
    requests: list[Any] = field(default_factory=list)
    responses: list[Any] = field(default_factory=list)
    stale: list[Any] = field(default_factory=list)
    watches: dict[str, Watch] = field(default_factory=dict)
    outbox: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    def of(self, kind: str) -> list[Any]:
        """The requests for a type."""
        return [each for each in self.requests if each.type_url == kind]

    @property
    def acks(self) -> list[Any]:
        return [r for r in self.requests if r.response_nonce and not r.HasField("error_detail")]

    @property
    def nacks(self) -> list[Any]:
        return [r for r in self.requests if r.HasField("error_detail")]


class AdsServer(XdsServer):
    """The server; `sotw[type_url][name]` is what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.sotw: dict[str, dict[str, bytes]] = {kind: {} for kind in (CDS, EDS, LDS, RDS)}
        self.ads: list[AdsStream] = []
        self.ads_open: list[AdsStream] = []
        self.silent: set[str] = set()
        self.broken = False
        self._pushes = count(1)

    def _methods(self) -> dict[str, Any]:
        method = grpc.stream_stream_rpc_method_handler(
            self._serve_ads, request_deserializer=DiscoveryRequest.FromString
        )
        return super()._methods() | {"StreamAggregatedResources": method}

    def put_ads(self, kind: str, name: str, message: Any) -> None:
        """Store a resource; `push_ads` makes it known."""
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        self.sotw[kind][name] = payload

    def push_ads(self, *kinds: str) -> None:
        """Send these types, in Istiod's order, to all who watch them."""
        for stream in self.ads_open:
            for kind in kinds or (CDS, EDS, LDS, RDS):
                if kind in stream.watches:
                    self._respond(stream, kind, stream.watches[kind].names)

    def send_ads(self, payload: bytes) -> None:
        """Send bytes as they are to every open stream."""
        for stream in self.ads_open:
            stream.outbox.put_nowait(payload)

    async def drop_ads(self) -> None:
        """End every open stream and stay there."""
        for stream in list(self.ads_open):
            stream.outbox.put_nowait(None)
        await self.until(lambda: not self.ads_open)

    async def _serve_ads(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[bytes]:
        stream = AdsStream(dict(context.invocation_metadata()))
        self.ads.append(stream)
        if self.broken:
            await self._notify()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no ADS today")
        self.ads_open.append(stream)
        reader = asyncio.ensure_future(self._read_ads(stream, requests))
        try:
            while (payload := await stream.outbox.get()) is not None:
                yield payload
        finally:
            reader.cancel()
            self.ads_open.remove(stream)
            await asyncio.shield(self._notify())

    async def _read_ads(self, stream: AdsStream, requests: AsyncIterator[Any]) -> None:
        async for request in requests:
            stream.requests.append(request)
            self._consider(stream, request)
            await self._notify()

    def _consider(self, stream: AdsStream, request: Any) -> None:
        kind, names = request.type_url, frozenset(request.resource_names)
        watch = stream.watches.get(kind)
        if request.HasField("error_detail"):
            return
        if not names and kind not in WILDCARD:
            stream.watches.pop(kind, None)
        elif watch is None or not request.response_nonce:
            stream.watches[kind] = Watch(names)
            self._respond(stream, kind, names)
        elif request.response_nonce != watch.nonce:
            stream.stale.append(request)
        else:
            added, watch.names = names - watch.names, names
            if added:
                self._respond(stream, kind, added)

    def _respond(self, stream: AdsStream, kind: str, names: Iterable[str]) -> None:
        if kind in self.silent:
            return
        number = next(self._pushes)
        response = DiscoveryResponse(
            version_info=f"v{number}", type_url=kind, nonce=f"nonce-{number}"
        )
        there = self.sotw[kind]
        for name in there if kind in WILDCARD else sorted(set(names) & there.keys()):
            response.resources.add(type_url=kind, value=there[name])
        stream.watches[kind].nonce = response.nonce
        stream.responses.append(response)
        stream.outbox.put_nowait(response.SerializeToString())
