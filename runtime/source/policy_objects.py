# SPDX-License-Identifier: Apache-2.0
"""AuthorizationPolicies from the API server, beside a source that tells of policies less than is in them.

Istiod says that a policy has conditions on HTTP; the object says which. The source is what it was without
them: where the API server does not know such objects, or does not show them, its policies are taken as
it tells them, and why is said once. While it does not answer, what objects said last counts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from runtime import log
from runtime.cluster.api import POLICIES, Api
from runtime.cluster.follow import Changed, Event, Listed, Trouble, follow
from runtime.model.policy import Policy, PolicyScope
from runtime.model.waypoint_policies import AtWaypoints
from runtime.source.authorization_policy import parse_authorization_policy
from runtime.source.fields import Field, FieldError
from runtime.source.policy_picture import PolicyPicture
from runtime.source.update import Rejection, Update

_SECONDS = 3.0  # that the first picture waits for the objects
_KIND = "AuthorizationPolicy"

_log = log.get("source.policies")


class _Status:
    """What the source tells of itself, and whether policies are known as they were written."""

    def __init__(self, of: WithPolicyObjects) -> None:
        self._of = of

    def to_json(self) -> Mapping[str, Any]:
        return {
            **self._of.source.status.to_json(),
            "policy_objects": self._of.trouble or "followed",
        }


class WithPolicyObjects:
    """A source whose policies are completed by their objects; all else is the source's.

    Args:
        source: tells of services, workloads and policies.
        api: the API server.
        wait: seconds that the first picture waits for the objects.

    Attributes:
        trouble: why objects are not known; "" where they are.
    """

    def __init__(self, source: Any, api: Api, *, wait: float = _SECONDS) -> None:
        self.source = source
        self.status = _Status(self)
        self.trouble = "not asked for yet"
        self._api = api
        self._wait = wait
        self._picture = PolicyPicture(alone=False)
        self._rejected: dict[str, str] = {}
        self._heard = False
        self._unknown = self.trouble  # why there may be policies that are not among the objects
        self._at_waypoints = AtWaypoints(unknown=self._unknown)
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    async def updates(self) -> AsyncIterator[Update]:
        """The source's updates, and changes of objects as they happen."""
        news: asyncio.Queue[Event] = asyncio.Queue()
        stop = threading.Event()
        arguments = (news, asyncio.get_running_loop(), stop)
        threading.Thread(
            target=self._watch, args=arguments, name=f"source {_KIND}", daemon=True
        ).start()
        inner: Any = self.source.updates()
        coming = _soon(anext(inner))
        event = _soon(news.get())
        try:
            await asyncio.wait({event}, timeout=self._wait)
            while True:
                await asyncio.wait({coming, event}, return_when=asyncio.FIRST_COMPLETED)
                if event.done():  # first: what the objects say is to be in the source's picture
                    update = self._take(event.result())
                    event = _soon(news.get())
                    if update != Update():
                        yield update
                elif coming.done():
                    update = self._completed(coming.result())
                    coming = _soon(anext(inner))
                    yield update
        except StopAsyncIteration:
            return
        finally:
            stop.set()
            for task in (coming, event):
                task.cancel()
            await asyncio.gather(coming, event, return_exceptions=True)
            with suppress(RuntimeError):  # it was cancelled, and is ending by itself
                await inner.aclose()

    def _completed(self, update: Update) -> Update:
        """What the source tells, with what objects say."""
        if update.complete:
            self._picture.forget_told()
        for key in update.removed_policies:
            self._picture.tell(key, None)
        for policy in update.policies:
            self._picture.tell(policy.key, policy)
        policies = tuple(self._picture.policies[one.key] for one in update.policies)
        if not update.complete:
            return replace(update, policies=policies)
        self._begun, self._at_waypoints = True, self._of_waypoints()
        return replace(update, policies=policies, at_waypoints=self._at_waypoints)

    def _take(self, event: Event) -> Update:
        """What changes by what happened to objects."""
        if isinstance(event, Trouble):
            event = self._excused(event)
            # What was heard once holds on, as long as nobody says that it does not.
            if not self._heard or isinstance(event, Listed):
                self._unknown = self.trouble
        else:
            self._follows()
        rejected = dict(self._rejected)
        changes: dict[str, Policy | None] = {}
        if isinstance(event, Listed):
            self._heard = True
            there = {_key(each): each for each in event.objects}
            for key in [key for key in self._picture.written if key not in there]:
                changes |= self._put(key, None, rejected)
            for key in [key for key in rejected if key.partition(" ")[2] not in there]:
                del rejected[key]
            for key, document in there.items():
                changes |= self._put(key, document, rejected)
        elif isinstance(event, Changed):
            now = None if event.gone else event.object
            changes |= self._put(_key(event.object), now, rejected)
        return self._update(changes, rejected)

    def _follows(self) -> None:
        if self.trouble:
            _log.info("%s: the API server shows them", _KIND)
        self.trouble = self._unknown = ""

    def _excused(self, event: Trouble) -> Event:
        """Where they are not there, or may not be read any more, policies are as the source tells them.

        That is strict: what is asked of requests is then a waypoint's. Rules that nobody may read would be
        kept for as long as that lasts, whatever their authors do.
        """
        missing = event.error.is_missing
        let_go = missing or event.error.status == 403
        why = "the API server does not know them" if missing else str(event.error)
        if self.trouble != why:
            kept = self._picture.written and not let_go
            so = (
                "what they said last counts"
                if kept
                else f"policies are as {self.source.name} tells them"
            )
            _log.warning("%s: %s; %s", _KIND, why, so)
        self.trouble = why
        return Listed(()) if let_go else event

    def _put(
        self, key: str, document: Mapping[str, Any] | None, rejected: dict[str, str]
    ) -> dict[str, Policy | None]:
        resource = f"{_KIND} {key}"
        rejected.pop(resource, None)
        if document is None:
            return self._picture.write(key, None)
        namespace, _, name = key.partition("/")
        try:
            made = parse_authorization_policy(Field(document), name=name, namespace=namespace)
        except FieldError as error:
            rejected[resource] = str(error)
            # What Istiod tells of it is of the new version; rules of an old one would not fit.
            return self._picture.write(key, None)
        return self._picture.write(key, made)

    def _update(self, changes: Mapping[str, Policy | None], rejected: dict[str, str]) -> Update:
        new = [item for item in rejected.items() if self._rejected.get(item[0]) != item[1]]
        gone = self._rejected.keys() - rejected.keys()
        self._rejected = rejected
        before, self._at_waypoints = self._at_waypoints, self._of_waypoints()
        is_news = self._begun and before != self._at_waypoints
        return Update(
            policies=tuple(one for one in changes.values() if one),
            rejections=tuple(Rejection(resource=name, reason=why) for name, why in new),
            accepted=tuple(sorted(gone)),
            at_waypoints=self._at_waypoints if is_news else None,
        )

    def _of_waypoints(self) -> AtWaypoints:
        """What Istiod does not tell of at all: policies that are attached to something."""
        written = sorted(self._picture.written.items())
        found = (one for _, one in written if one.scope is PolicyScope.SERVICE and not one.dry_run)
        unread = f"{', '.join(sorted(self._rejected))} cannot be read" if self._rejected else ""
        return AtWaypoints(policies=tuple(found), unknown=self._unknown or unread)

    def _watch(
        self, news: asyncio.Queue[Event], loop: asyncio.AbstractEventLoop, stop: threading.Event
    ) -> None:
        for event in follow(self._api, POLICIES, wait=stop.wait):
            try:
                loop.call_soon_threadsafe(news.put_nowait, event)
            except RuntimeError:  # the loop is closed: nobody listens any more
                return


def _key(document: Mapping[str, Any]) -> str:
    metadata = document["metadata"]
    return f"{metadata.get('namespace') or 'default'}/{metadata['name']}"


def _soon(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.ensure_future(work)
