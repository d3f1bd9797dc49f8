# SPDX-License-Identifier: Apache-2.0
"""The controller: every update of the source goes through the tables into the kernel.

One resource that cannot be programmed costs only itself: it is named in the view, everything else
is applied, and it is tried again now and then, by comparing what is wanted with what is there.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from runtime import log
from runtime.collector import collector_paused, spare_what_is_there
from runtime.control.authorization import Authorization
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.kernel.apply import ApplyError
from runtime.model.policy_opened import opened
from runtime.source.update import Source, Update
from runtime.tables.ops import Contents, Op
from runtime.tables.place import Whereabouts
from runtime.tables.services import ServiceTables

_RETRY_SECONDS = (1, 2, 5, 10, 30)

_log = log.get("control")


class Kernel(Protocol):
    """Carries map operations out, and tells what is in the maps."""

    def apply(self, ops: Sequence[Op]) -> object: ...
    def contents(self) -> Contents: ...


class Routes(Protocol):
    """Brings the routes of a view into the kernel, and tells whether something may go in at another attempt."""

    is_behind: bool

    def program(self, update: Update, view: View) -> Mapping[str, str]: ...


class Controller:
    """Consumes a source until cancelled.

    Args:
        source: where updates come from.
        tables: what they become.
        kernel: where that goes; used under `lock` only, in a thread of its own.
        view: what is known, kept up to date here.
        on_synced: called once, when the first whole picture is in the kernel.
        authorization: takes the policies; used like the kernel.
        whereabouts: this node's place, which the tables were made with; more is learned here.

    Attributes:
        routes: takes the routes, where the path has any use for them; used here alone.
        opens: clients' nodes are taken to have judged requests.
    """

    def __init__(
        self,
        source: Source,
        *,
        tables: ServiceTables,
        kernel: Kernel,
        view: View,
        lock: threading.Lock,
        on_synced: Callable[[], None],
        authorization: Authorization | None = None,
        whereabouts: Whereabouts | None = None,
    ) -> None:
        self._source = source
        self.opens = False
        self.routes: Routes | None = None
        self._authorization = authorization
        self._tables = tables
        self._whereabouts = whereabouts
        self._kernel = kernel
        self._view = view
        self._lock = lock
        self._on_synced = on_synced
        self._failures = 0  # in a row, of the kernel
        self._open_doors = 0  # the same, where policies could not be enforced
        self._unrouted = 0  # the same, where routes could not be brought in
        self._whole = False  # the source has given its whole picture
        view.source = source.name
        view.details = partial(_details, source)
        view.origins = getattr(source, "origins", dict)

    async def run(self) -> None:
        """Take updates for ever; a source that fails is asked again, and what it said stays."""
        failures = 0
        while True:
            try:
                async for update in self._updates():
                    await self._take(update)
                    failures = 0
            except KmeshError as error:
                self._trouble(
                    f"source {self._source.name}: {error}; what it said last keeps serving"
                )
            await asyncio.sleep(_pause(failures))
            failures += 1

    async def _updates(self) -> AsyncIterator[Update]:
        """The source's updates; while the kernel lags behind, an empty one now and then."""
        updates = self._source.updates()
        coming: asyncio.Task[Update] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(updates))
                failures = max(self._failures, self._open_doors, self._unrouted)
                timeout = _pause(failures - 1) if failures else None
                done, _ = await asyncio.wait({coming}, timeout=timeout)
                if not done:
                    yield Update()
                    continue
                arrived, coming = coming, None
                yield arrived.result()
        except StopAsyncIteration:
            return
        finally:
            if coming:
                coming.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await coming

    async def _take(self, update: Update) -> None:
        self._report_rejections(update)
        if self.opens and update.policies:
            update = replace(update, policies=tuple(map(opened, update.policies)))
        with collector_paused(when=update.complete or update.http is not None):
            if update != Update():
                self._view.take(update)
                _log.debug("update %d: %s", self._view.updates, _size(update))
            self._whole |= update.complete
            failed = await asyncio.to_thread(self._program, update)
        self._report_failures(failed or {})
        services = self._view.services.keys()
        if failed is None or (services and failed.keys() >= services):
            return
        if self._whole and self._routes_are_known and self._view.synced is None:
            self._view.synced = time.time()
            self._on_synced()
            spare_what_is_there()

    def _program(self, update: Update) -> dict[str, str] | None:
        """Bring an update in: policies first, so that nobody is reached before they guard him."""
        self._locate(update)
        refused = self._authorize(update)
        failed = self._serve(update)
        unrouted = self._route(update)
        return None if failed is None else {**failed, **refused, **unrouted}

    @property
    def _routes_are_known(self) -> bool:
        """Before, a service with routes would be balanced as one without: nobody is to be sent there yet."""
        http = self._view.http
        return self.routes is None or (http is not None and http.known)

    def _route(self, update: Update) -> Mapping[str, str]:
        """Bring routes in, after the services that they are for; what is not in, with the reason."""
        if self.routes is None:
            return {}
        failed = self.routes.program(update, self._view)  # may compile for long: no lock
        self._unrouted = self._unrouted + 1 if self.routes.is_behind else 0
        return failed

    def _locate(self, update: Update) -> None:
        """Before anything is made of an update: where this node is may be known by it."""
        if self._whereabouts is None or not self._whereabouts.learn(update):
            return
        place = self._whereabouts.place
        _log.info("this node, as far as told and as its workloads say: %s", place)
        self._tables.relocate(place)
        if self._authorization is not None:
            with self._lock:
                self._authorization.relocate(place)

    def _authorize(self, update: Update) -> Mapping[str, str]:
        """Returns the policies that are not enforced, with the reason."""
        if self._authorization is None:
            return {}
        with self._lock:
            refused = self._authorization.program(update)
        self._open_doors = self._open_doors + 1 if self._authorization.is_behind else 0
        return refused

    def _serve(self, update: Update) -> dict[str, str] | None:
        """Bring services and workloads, and what failed before, into the kernel.

        Returns:
            the resources that failed, with the reason; None when the kernel refuses altogether.
        """
        ops = self._tables.apply(update)
        try:
            with self._lock:
                if self._failures:
                    ops = self._tables.resync(self._kernel.contents())
                self._kernel.apply(ops)
        except ApplyError as error:
            self._trouble(f"the kernel lags behind: {error}")
            self._failures += 1
            return dict(error.failed)
        except KmeshError as error:
            self._trouble(f"the kernel refused an update: {error}")
            self._failures += 1
            return None
        self._view.trouble = ""
        self._failures = 0
        return {}

    def _trouble(self, what: str) -> None:
        if self._view.trouble != what:
            _log.error("%s", what)
        self._view.trouble = what

    def _report_rejections(self, update: Update) -> None:
        for each in update.rejections:
            _log.warning(
                "rejected %s: %s (its last good version, if any, keeps serving)",
                each.resource,
                each.reason,
            )
        for resource in update.accepted:
            if resource in self._view.rejected:
                _log.info("%s is no longer rejected", resource)

    def _report_failures(self, refused: dict[str, str]) -> None:
        failed = {each.resource: each.reason for each in self._tables.problems} | refused
        for resource, reason in failed.items():
            if self._view.failed.get(resource) != reason:
                _log.error("%s failed: %s", resource, reason)
        self._view.failed = failed


def _details(source: Source) -> Mapping[str, Any]:
    """What a source tells about itself, where it has anything to tell."""
    status = getattr(source, "status", None)
    details: Mapping[str, Any] = status.to_json() if status else {}
    return details


def _pause(failures: int) -> int:
    return _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]


def _size(update: Update) -> str:
    return (
        f"{len(update.services)} services, {len(update.workloads)} workloads and "
        f"{len(update.policies)} policies changed; {len(update.removed_services)}, "
        f"{len(update.removed_workloads)} and {len(update.removed_policies)} removed"
    )
