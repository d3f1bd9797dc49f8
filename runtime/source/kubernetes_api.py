# SPDX-License-Identifier: Apache-2.0
"""`--source kubernetes`: Services, EndpointSlices, HTTPRoutes and AuthorizationPolicies from the API server, without Istio.

Objects become the model in the very way that they do from files; the watches hand over what changed,
and an object that cannot be accepted costs only itself: its last good version keeps serving. A cluster
need not know the Gateway API, or Istio's: these are then asked for again, and taken once they are there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runtime import log
from runtime.cluster.api import POLICIES, ROUTES, SERVICES, SLICES, Api
from runtime.cluster.follow import Changed, Event, Listed, Trouble, follow
from runtime.model.policy import Policy
from runtime.source.fields import Field, FieldError
from runtime.source.kubernetes_join import Changes, Identity, Join
from runtime.source.kubernetes_service import parse_service
from runtime.source.kubernetes_slice import parse_slice
from runtime.source.kubernetes_yaml import in_doubt, parse_authorization_policy, parse_http_route
from runtime.source.policy_unnamed import without_identities
from runtime.source.update import Rejection, Update

if TYPE_CHECKING:
    from runtime.model.http_picture import HttpChange
    from runtime.source.gateway_picture import RoutePicture

_SETTLE_SECONDS = 0.05  # changes that come together are brought in together

_log = log.get("source.kubernetes")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of objects; one that is `optional` need not be known to the API server."""

    name: str
    path: str
    parse: Callable[..., Any]
    optional: bool = False


_ROUTE = _Kind("HTTPRoute", ROUTES, parse_http_route, optional=True)
_POLICY = _Kind("AuthorizationPolicy", POLICIES, parse_authorization_policy, optional=True)
_KINDS = (
    _Kind("Service", SERVICES, parse_service),
    _Kind("EndpointSlice", SLICES, parse_slice),
    _ROUTE,
    _POLICY,
)
# Of a kind that has nothing to balance, and no fault of anybody's.
_PASSED_OVER = ("ExternalName",)
_SERVICE_LABEL = "kubernetes.io/service-name"
_UNKNOWN = "the API server does not know them"


@dataclass(slots=True)
class Status:
    """What the source tells of itself.

    Attributes:
        errors: what stands in the way of news, by the kind of objects.
        unguarded: why policies were never heard of, though there may be some; "" where that is not so.
    """

    address: str
    errors: dict[str, str] = field(default_factory=dict)
    unguarded: str = ""

    def to_json(self) -> Mapping[str, Any]:
        told = "; ".join(f"{kind}: {why}" for kind, why in self.errors.copy().items())
        return {"address": self.address, "last_error": told, "unguarded": self.unguarded}


@dataclass(slots=True)
class State:
    """What all objects say together, and what of it cannot be accepted."""

    join: Join = field(default_factory=Join)
    policies: dict[str, Policy | None] = field(default_factory=dict)  # None: it has just gone
    _routes: RoutePicture | None = None  # from the first picture on
    _there: dict[str, set[Identity]] = field(default_factory=dict)
    _rejected: dict[str, str] = field(default_factory=dict)
    _good: set[Identity] = field(default_factory=set)  # policies of which a good version is known
    _heard: set[str] = field(default_factory=set)
    _complete: bool = False

    def take(self, news: list[tuple[_Kind, Event]]) -> Update | None:
        """Take what happened, in its order; None until every kind was listed once."""
        objects: dict[Identity, Any] = {}
        rejected = dict(self._rejected)
        for kind, event in news:
            if isinstance(event, Listed):
                self._heard.add(kind.name)
                before = self._there.get(kind.name, set())
                there = {_identity(kind, one): one for one in event.objects}
                for identity in before - there.keys():
                    self._put(kind, identity, None, objects, rejected)
                for identity, document in there.items():
                    self._put(kind, identity, document, objects, rejected)
            elif isinstance(event, Changed):
                now = None if event.gone else event.object
                self._put(kind, _identity(kind, event.object), now, objects, rejected)
        routes = {each: objects.pop(each) for each in list(objects) if each[0] == _ROUTE.name}
        written = {each: objects.pop(each) for each in list(objects) if each[0] == _POLICY.name}
        changes = self.join.apply(objects)
        self._put_routes(routes)
        # Pods are not followed here: nobody is known.
        policies = {
            f"{each[1]}/{each[2]}": policy and without_identities(policy)
            for each, policy in written.items()
        }
        self.policies = {**self.policies, **policies}
        if len(self._heard) < len(_KINDS):
            self._rejected = rejected
            return None
        changed = routes or policies or changes.services or changes.workloads
        # The first picture tells of HTTP also where there is none: what was there before it is then gone.
        http = self._http() if changed or not self._complete else None
        return self._with_policies(self._update(changes, rejected, http), policies)

    def _with_policies(self, update: Update, changed: Mapping[str, Policy | None]) -> Update:
        """An update with the policies that changed, or with all where it is the whole picture."""
        found = self.policies if update.complete else changed
        gone = () if update.complete else tuple(key for key, one in changed.items() if one is None)
        self.policies = {key: one for key, one in self.policies.items() if one is not None}
        policies = tuple(one for one in found.values() if one is not None)
        return replace(update, policies=policies, removed_policies=gone) if found else update

    def has_heard_of(self, kind: str) -> bool:
        """Whether objects of a kind were listed."""
        return kind in self._heard

    def _put_routes(self, routes: Mapping[Identity, Any]) -> None:
        for identity, route in routes.items():
            self._picture().put(identity, route)

    def _picture(self) -> RoutePicture:
        """Imported while the first lists are on their way: nobody waits for it."""
        if self._routes is None:
            from runtime.source.gateway_picture import RoutePicture

            self._routes = RoutePicture()
        return self._routes

    def _http(self) -> HttpChange | None:
        return self._picture().change(
            services=self.join.services,
            workloads=self.join.workloads.values(),
            policies=[one for one in self.policies.values() if one is not None],
        )

    def _put(
        self,
        kind: _Kind,
        identity: Identity,
        document: Mapping[str, Any] | None,
        objects: dict[Identity, Any],
        rejected: dict[str, str],
    ) -> None:
        resource = f"{kind.name} {identity[1]}/{identity[2]}"
        there = self._there.setdefault(kind.name, set())
        rejected.pop(resource, None)
        if document is None or _is_passed_over(kind, document):
            there.discard(identity)
            self._good.discard(identity)
            objects[identity] = None
            return
        there.add(identity)
        names = {"name": identity[2], "namespace": identity[1]}
        try:
            manifest, is_good = kind.parse(Field(document), **names), True
        except FieldError as error:
            rejected[resource] = str(error)
            manifest, is_good = in_doubt(kind.name, Field(document), error, **names)
            if manifest is None or (identity in self._good and not is_good):
                return
        objects[identity] = manifest
        if is_good and kind is _POLICY:
            self._good.add(identity)

    def _update(
        self, changes: Changes, rejected: dict[str, str], http: HttpChange | None
    ) -> Update:
        new = [item for item in rejected.items() if self._rejected.get(item[0]) != item[1]]
        gone = self._rejected.keys() - rejected.keys()
        self._rejected = rejected
        if not self._complete:
            self._complete = True
            return Update(
                services=tuple(self.join.services.values()),
                workloads=tuple(self.join.workloads.values()),
                rejections=tuple(Rejection(resource=n, reason=w) for n, w in rejected.items()),
                complete=True,
                http=http,
            )
        return Update(
            services=tuple(s for s in changes.services.values() if s),
            workloads=tuple(w for w in changes.workloads.values() if w),
            removed_services=tuple(k for k, s in changes.services.items() if not s),
            removed_workloads=tuple(k for k, w in changes.workloads.items() if not w),
            rejections=tuple(Rejection(resource=name, reason=why) for name, why in new),
            accepted=tuple(sorted(gone)),
            http=http,
        )


def _identity(kind: _Kind, document: Mapping[str, Any]) -> Identity:
    metadata = document["metadata"]
    return kind.name, metadata.get("namespace") or "default", metadata["name"]


def _is_passed_over(kind: _Kind, document: Mapping[str, Any]) -> bool:
    spec = document.get("spec") or {}
    if kind.name == "Service":
        return spec.get("type") in _PASSED_OVER
    if kind is _ROUTE:  # for gateways alone: theirs to judge
        return not any(
            (ref.get("group"), ref.get("kind")) == ("", "Service")
            for ref in spec.get("parentRefs") or ()
        )
    if kind is _POLICY:
        return False
    labels = document["metadata"].get("labels") or {}
    return _SERVICE_LABEL not in labels or document.get("addressType") == "FQDN"


class KubernetesSource:
    """The API server as a source of services, workloads and HTTP routes.

    Args:
        api: the API server.
        settle: seconds in which changes that come together are waited for.
    """

    def __init__(self, api: Api, *, settle: float = _SETTLE_SECONDS) -> None:
        self.name = "kubernetes"
        self.status = Status(address=str(getattr(api, "server", "")))
        self._api = api
        self._settle = settle
        self._state = State()
        self._without: dict[str, str] = {}  # optional kinds that are not there → why

    async def updates(self) -> AsyncIterator[Update]:
        """The whole picture first, then changes as they happen; never ends by itself."""
        news: asyncio.Queue[tuple[_Kind, Event]] = asyncio.Queue()
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        for kind in _KINDS:
            arguments = (kind, news, loop, stop)
            name = f"source {kind.name}"
            threading.Thread(target=self._watch, args=arguments, name=name, daemon=True).start()
        try:
            while True:
                batch = [await news.get()]
                await asyncio.sleep(self._settle)
                while not news.empty():
                    batch.append(news.get_nowait())
                update = self._take(batch)
                if update is not None and update != Update():
                    yield update
        finally:
            stop.set()

    def _take(self, batch: list[tuple[_Kind, Event]]) -> Update | None:
        news = [(kind, self._excused(kind, event)) for kind, event in batch]
        for kind, event in news:
            if isinstance(event, Trouble):
                if self.status.errors.get(kind.name) != str(event.error):
                    _log.warning("%s: %s; what was said last keeps serving", kind.name, event.error)
                self.status.errors[kind.name] = str(event.error)
            else:
                self.status.errors.pop(kind.name, None)
        refused = self._without.get(_POLICY.name, "")
        self.status.unguarded = "" if refused in ("", _UNKNOWN) else f"{_POLICY.name}: {refused}"
        return self._state.take(news)

    def _excused(self, kind: _Kind, event: Event) -> Event:
        """Of a kind that need not be there, that it is not means that there are no such objects."""
        if not kind.optional:
            return event
        if not isinstance(event, Trouble):
            if self._without.pop(kind.name, None):
                _log.info("%s: the API server has them now", kind.name)
            return event
        missing, without = event.error.is_missing, self._without.get(kind.name)
        # Who may not read them goes on without; who could until now keeps what was said last.
        may_go = event.error.status == 403 and (without or not self._state.has_heard_of(kind.name))
        if not missing and not may_go:
            return event
        why = _UNKNOWN if missing else str(event.error)
        if without != why:
            log_it = _log.info if missing else _log.warning
            log_it("%s: %s; going on without, until that changes", kind.name, why)
        self._without[kind.name] = why
        return Listed(())

    def _watch(
        self,
        kind: _Kind,
        news: asyncio.Queue[tuple[_Kind, Event]],
        loop: asyncio.AbstractEventLoop,
        stop: threading.Event,
    ) -> None:
        for event in follow(self._api, kind.path, wait=stop.wait):
            try:
                loop.call_soon_threadsafe(news.put_nowait, (kind, event))
            except RuntimeError:  # the loop is closed: nobody listens any more
                return
