# SPDX-License-Identifier: Apache-2.0
"""The source of HTTP: what Istiod would tell a sidecar, over ADS.

The order is Envoy's, which Istiod expects: all clusters, the endpoints of those that have some; all
listeners, the route tables that they name. A request for names goes out as soon as these are known; on a
new stream all four go out at once, since the names are known from before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace

from runtime import log
from runtime.model.http import Cluster, Listener
from runtime.source.istiod.ads.changes import HttpChanges, KnownHttp
from runtime.source.istiod.ads.kinds import CLUSTERS, ENDPOINT_SETS, LISTENERS, TABLES
from runtime.source.istiod.ads.subscription import Outcome, StateSubscription
from runtime.source.istiod.client import Client, Sleep, unless_ended
from runtime.source.istiod.config import IstiodConfig
from runtime.source.istiod.pending import Pending
from runtime.source.istiod.session import STATE_OF_THE_WORLD
from runtime.source.istiod.status import AdsStatus
from runtime.source.update import Update

_log = log.get("source.istiod")
Resources = Mapping[str, Mapping[str, bytes]]
Follower = Callable[[Resources], object]


class AdsSource:
    """Clusters, endpoints, listeners and routes from Istiod; make it inside a running event loop.

    Args:
        config: where Istiod is and how to talk to it; the node is said to be a sidecar.
        sleep: waits between attempts to connect.
    """

    name = "istiod (ADS)"

    def __init__(self, config: IstiodConfig, *, sleep: Sleep = asyncio.sleep) -> None:
        self.status = AdsStatus(address=config.address)
        self._config = replace(config, node=replace(config.node, kind="sidecar"))
        self._clusters = StateSubscription(CLUSTERS)
        self._endpoints = StateSubscription(ENDPOINT_SETS)
        self._listeners = StateSubscription(LISTENERS)
        self._tables = StateSubscription(TABLES)
        self._all = (self._clusters, self._endpoints, self._listeners, self._tables)
        self._clusters.allow()
        self._wants_endpoints: dict[str, str] = {}  # cluster → name of its endpoints
        self._wants_tables: dict[str, tuple[str, ...]] = {}  # listener → names of its tables
        self._followers: list[Follower] = []
        self._pending = Pending(HttpChanges, known=KnownHttp())
        self._client = Client(
            self._config,
            subscriptions=self._all,
            status=self.status,
            received=self._received,
            dialect=STATE_OF_THE_WORLD,
            not_offered=self._not_offered,
            sleep=sleep,
        )

    def origins(self) -> dict[str, str]:
        """Who sent each resource. May be called from any thread."""
        return {
            f"{each.label} {name}": f"istiod {self._config.address}"
            for each in self._all
            for name in list(each.payloads)
        }

    def follow(self, follower: Follower) -> None:
        """Call it with `resources()` from the first whole picture on, after each change, in the source's loop."""
        self._followers.append(follower)
        if self.status.synced:
            follower(self.resources())

    def resources(self) -> Resources:
        """The very resources that Istiod sent, as they are held: type URL → name → message.

        For an Envoy that is to mean the same. Call it in the loop of the source.
        """
        return {each.type_url: dict(each.payloads) for each in self._all}

    async def updates(self) -> AsyncIterator[Update]:
        """Changes, the first of them the whole picture of HTTP; for one consumer at a time.

        It does not end; the connection is closed when the iterator is. Asked again after that, it
        goes on with what has changed since, for the same consumer.

        Raises:
            KmeshError: the client came to an end, which only a fault of ours can bring about.
        """
        client = asyncio.get_running_loop().create_task(self._client.run())
        try:
            while True:
                yield await unless_ended(client, self._pending.take())
        finally:
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)

    def _not_offered(self) -> None:
        """A server of the workload API alone: its services are not kept waiting for HTTP."""
        if not self.status.synced and self.status.offered:
            self.status.offered = False
            _log.warning("%s offers no ADS: there is no HTTP until it does", self._config.address)
            self._pending.set_whole()

    def _received(self, subscription: StateSubscription, outcome: Outcome) -> None:
        self._pending.merge(outcome.changes)
        if subscription is self._clusters:
            self._note_clusters(outcome.changes)
            self._want(self._endpoints, set(self._wants_endpoints.values()))
            self._send(self._listeners.allow())
        elif subscription is self._listeners:
            self._note_listeners(outcome.changes)
            names = {name for tables in self._wants_tables.values() for name in tables}
            self._want(self._tables, names)
        self._count()
        if not self.status.synced and all(each.settled for each in self._all):
            self.status.synced = self.status.offered = True
            self._pending.set_whole()
            _log.info(
                "first sync of HTTP: %d clusters, %d listeners, %d route tables",
                self.status.clusters,
                self.status.listeners,
                self.status.route_tables,
            )
        if self.status.synced:
            for follower in self._followers:
                follower(self.resources())

    def _want(self, subscription: StateSubscription, names: set[str]) -> None:
        request, removed = subscription.want(names)
        self._pending.merge(removed)
        self._send(request)

    def _send(self, request: object) -> None:
        if request is not None:
            self._client.send(request)

    def _note_clusters(self, changes: HttpChanges) -> None:
        for (_, name), state in changes.resources.items():
            self._wants_endpoints.pop(name, None)
            if isinstance(state, Cluster) and state.endpoints_name:
                self._wants_endpoints[name] = state.endpoints_name

    def _note_listeners(self, changes: HttpChanges) -> None:
        for (_, name), state in changes.resources.items():
            self._wants_tables.pop(name, None)
            if isinstance(state, Listener) and state.tables:
                self._wants_tables[name] = state.tables

    def _count(self) -> None:
        self.status.clusters = len(self._clusters.payloads)
        self.status.endpoints = len(self._endpoints.payloads)
        self.status.listeners = len(self._listeners.payloads)
        self.status.route_tables = len(self._tables.payloads)
        self.status.refused = {
            name: reason for each in self._all for name, reason in each.refusals().items()
        }
