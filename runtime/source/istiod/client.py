# SPDX-License-Identifier: Apache-2.0
"""Keeps a stream to Istiod open: connects, reads, and connects again, for ever.

Each attempt makes a new channel, so that the files of the credentials and Istiod's addresses are
read anew. Waits grow at random (full jitter, so that a fleet does not return in step) until a
stream brings something; what is held meanwhile stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from runtime import log
from runtime.errors import KmeshError
from runtime.source.istiod.config import IstiodConfig
from runtime.source.istiod.credentials import Connection
from runtime.source.istiod.session import (
    DELTA,
    Dialect,
    Received,
    Session,
    StreamError,
    Subscribed,
)
from runtime.source.istiod.status import StreamStatus

_log = log.get("source.istiod")
_T = TypeVar("_T")
Sleep = Callable[[float], Awaitable[None]]


class Client:
    """The connection to Istiod.

    Args:
        config: where and how.
        subscriptions: the resource types; their state outlives each stream.
        status: counters to keep.
        received: called with what each response came to.
        dialect: how Istiod is talked to.
        not_offered: called when the server says that it does not know the dialect at all.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        config: IstiodConfig,
        *,
        subscriptions: Sequence[Subscribed],
        status: StreamStatus,
        received: Received,
        dialect: Dialect = DELTA,
        not_offered: Callable[[], object] = lambda: None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._config = config
        self._subscriptions = subscriptions
        self._status = status
        self._received = received
        self._dialect = dialect
        self._not_offered = not_offered
        self._sleep = sleep
        self._session: Session | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(StreamError),
                wait=wait_random_exponential(
                    multiplier=self._config.backoff_first, max=self._config.backoff_most
                ),
                before_sleep=self._failed,
                sleep=self._sleep,
            )
            await retrying(self._stream)
            # After a stream that was of use: soon, yet not all clients in the same moment.
            await self._sleep(random.uniform(0, self._config.backoff_first))  # noqa: S311

    def send(self, request: Any) -> None:
        """Send a request if a stream is open; every later one begins with all that is wanted."""
        if self._session is not None:
            with contextlib.suppress(StreamError):
                self._session.send(request)

    async def _stream(self) -> None:
        """Open a stream and read it to its end.

        Raises:
            StreamError: it brought nothing, or something that makes no sense.
        """
        session = Session(
            self._subscriptions,
            dialect=self._dialect,
            node=self._config.node,
            largest_request=self._config.largest_request,
            status=self._status,
            received=self._received,
        )
        reason = await self._reason_of_end(session)
        self._status.connected = False
        self._status.last_error = reason
        if not session.fruitful:
            raise StreamError(reason)
        _log.info("the stream from Istiod (%s) ended: %s", self._dialect.what, reason)

    async def _reason_of_end(self, session: Session) -> str:
        try:
            return await self._converse(session)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._not_offered()
            return f"{error.code().name}: {error.details()}"
        except KmeshError as error:
            session.fruitful = False
            return str(error)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with us, the last good state must stay up
            _log.exception("reading from Istiod failed")
            for subscription in self._subscriptions:
                subscription.distrust()
            session.fruitful = False
            return f"internal error: {error!r}"

    async def _converse(self, session: Session) -> str:
        options = self._config.channel_options()
        connection = self._config.credentials.connect(self._config.address, options=options)
        async with connection.channel as channel:
            self._status.streams += 1
            metadata = (("clusterid", self._config.node.cluster_id), *connection.metadata)
            # Bytes both ways: a message that does not parse must not end in gRPC's own layer.
            method = channel.stream_stream(
                self._dialect.method, request_serializer=bytes, response_deserializer=bytes
            )
            call = method(session.requests(), metadata=metadata)
            session.begin()
            self._session = session
            try:
                return await self._first_of(self._read(call, session), self._rotated(connection))
            finally:
                self._session = None
                session.close()
                call.cancel()

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, bytes], session: Session) -> str:
        while True:
            payload = await call.read()
            if not isinstance(payload, bytes):
                return "Istiod closed it"
            await session.receive(payload)
            payload = b""
            if not self._status.connected:
                self._status.connected, self._status.last_error = True, None
                where, what = self._config.address, self._dialect.what
                _log.info("connected to Istiod at %s (%s)", where, what)

    async def _rotated(self, connection: Connection) -> str:
        while True:
            await asyncio.sleep(self._config.rotation_check)
            if self._config.credentials.changed(connection):
                return "the mesh root certificate was replaced"

    async def _first_of(self, *works: Awaitable[str]) -> str:
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _failed(self, state: RetryCallState) -> None:
        self._status.failures += 1
        wait = state.next_action.sleep if state.next_action else 0.0
        _log.warning(
            "no stream from Istiod at %s (%s): %s; next attempt in %.1f s",
            self._config.address,
            self._dialect.what,
            self._status.last_error,
            wait,
        )


async def unless_ended(client: asyncio.Task[None], work: Coroutine[Any, Any, _T]) -> _T:
    """The result of some work, unless the client ends before.

    Raises:
        KmeshError: it did.
    """
    waiting = asyncio.ensure_future(work)
    try:
        await asyncio.wait({waiting, client}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            error = None if client.cancelled() else client.exception()
            raise KmeshError(f"the client of Istiod ended: {error!r}") from error
        return waiting.result()
    finally:
        waiting.cancel()
