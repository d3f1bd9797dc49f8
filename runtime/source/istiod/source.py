# SPDX-License-Identifier: Apache-2.0
"""The source `istiod`: the mesh as Istiod's workload API tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from runtime import log
from runtime.errors import KmeshError
from runtime.model.mesh import NetworkAddress, Workload
from runtime.source.istiod.changes import Changes, Known
from runtime.source.istiod.client import Client, Sleep, unless_ended
from runtime.source.istiod.config import IstiodConfig
from runtime.source.istiod.hostname import Hostnames, Lookup, system_lookup
from runtime.source.istiod.kinds import AddressKind, AuthorizationKind
from runtime.source.istiod.on_demand import Demands
from runtime.source.istiod.pending import Pending
from runtime.source.istiod.status import IstiodStatus
from runtime.source.istiod.subscription import Outcome, Subscription
from runtime.source.istiod.time_to_live import time_to_live
from runtime.source.update import Update

_log = log.get("source.istiod")


class IstiodSource:
    """Services, workloads and policies from Istiod; make it inside a running event loop.

    Args:
        config: where Istiod is and how to talk to it.
        lookup: resolves the hostnames of workloads.
        sleep: waits between attempts to connect.
    """

    name = "istiod"

    def __init__(
        self,
        config: IstiodConfig,
        *,
        lookup: Lookup = system_lookup,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.status = IstiodStatus(address=config.address, on_demand=config.on_demand)
        self._config = config
        self._kind = AddressKind()
        self._addresses = Subscription(self._kind, on_demand=config.on_demand)
        self._policies = Subscription(AuthorizationKind())
        self._pending = Pending(Changes, known=Known())
        self._demands = Demands(self._ask)
        self._hostnames = Hostnames(
            changed=self._resolved,
            unresolved=self.status.unresolved,
            refresh=config.hostname_refresh,
            lookup=lookup,
            life=time_to_live if lookup is system_lookup else None,
        )
        self._client = Client(
            config,
            subscriptions=(self._addresses, self._policies),
            status=self.status,
            received=self._received,
            sleep=sleep,
        )

    def origins(self) -> dict[str, str]:
        """Who sent each resource, and its version. May be called from any thread."""
        sender = f"istiod {self._config.address}"
        held = (self._addresses.versions.copy(), self._policies.versions.copy())
        return {
            name: f"{sender}, version {version or 'unknown'}"
            for versions in held
            for name, version in versions.items()
        }

    async def updates(self) -> AsyncIterator[Update]:
        """Changes, the first of them the whole picture; for one consumer at a time.

        It does not end; the connection is closed when the iterator is. Asked again after that, it
        goes on with what has changed since, for the same consumer.

        Raises:
            KmeshError: the client came to an end, which only a fault of ours can bring about.
        """
        client = asyncio.get_running_loop().create_task(self._client.run())
        self._hostnames.resume()
        try:
            await unless_ended(client, self._pending.wait_whole())
            await self._hostnames.settle(self._config.hostname_wait)
            while True:
                yield await unless_ended(client, self._pending.take())
        finally:
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
            await self._hostnames.close()

    async def demand(self, address: NetworkAddress) -> bool:
        """With `on_demand`: ask for what is at an address; see `Demands.demand`.

        Raises:
            KmeshError: the source holds the whole mesh already.
        """
        if not self._config.on_demand:
            raise KmeshError("this source is not on demand: it holds every address already")
        return await self._demands.demand(address) if self._addresses.on_demand else True

    def release(self, address: NetworkAddress) -> None:
        """With `on_demand`: stop following an address."""
        if self._addresses.on_demand:
            self._demands.release(address)

    def _want_all(self) -> None:
        """A policy asks who a connection is from, and that may be anyone: nobody may be unknown."""
        _log.warning("on demand no more: there are policies, which may be about any workload")
        self._client.send(self._addresses.want_all())
        self.status.on_demand = False

    def _ask(self, add: Sequence[str], drop: Sequence[str]) -> None:
        self._client.send(self._addresses.ask(add=add, drop=drop))

    def _received(self, subscription: Subscription, outcome: Outcome) -> None:
        self._pending.merge(outcome.changes)
        self._pending.merge(Changes(workloads=self._hostnames.take(outcome.changes.workloads)))
        if subscription is self._addresses and self._config.on_demand:
            self._demands.answered(found=outcome.found, missing=outcome.missing)
        unknown = self._addresses.on_demand and self._config.whole_for_policies
        if unknown and self._policies.versions:
            self._want_all()
        self._count()
        if not self.status.synced and self._addresses.synced and self._policies.synced:
            self.status.synced = True
            self._pending.set_whole()
            _log.info(
                "first sync: %d services, %d workloads, %d policies",
                self.status.services,
                self.status.workloads,
                self.status.policies,
            )

    def _resolved(self, workload: Workload) -> None:
        self._pending.merge(Changes(workloads={workload.uid: workload}))

    def _count(self) -> None:
        self.status.services = len(self._kind.services)
        self.status.workloads = len(self._addresses.versions) - self.status.services
        self.status.policies = len(self._policies.versions)
        self.status.refused = self._addresses.refusals() | self._policies.refusals()
