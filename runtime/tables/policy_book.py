# SPDX-License-Identifier: Apache-2.0
"""Which workloads are at an address of this node's network, and who it therefore may be."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from runtime.model.mesh import IPAddress, NetworkMode, Workload
from runtime.model.policy import identity_of
from runtime.source.update import Update
from runtime.tables.policy_set import Claim


class AddressBook:
    """Workloads by address.

    Args:
        network: this node's network; addresses in others are somebody else's. None: all are one.
    """

    def __init__(self, *, network: str | None) -> None:
        self._network = network
        self._workloads: dict[str, Workload] = {}
        self._at: dict[IPAddress, dict[str, None]] = {}
        self._kept: dict[str, Workload] = {}

    @property
    def addresses(self) -> Collection[IPAddress]:
        return self._at.keys()

    def at(self, address: IPAddress) -> Iterator[Workload]:
        """The workloads that have an address: one, as a rule."""
        return (self._workloads[uid] for uid in self._at.get(address, ()))

    def claim(self, address: IPAddress) -> Claim:
        """Who an address may be. Workloads in the node's own network share its: it is nobody's."""
        return frozenset(
            None if one.network_mode is NetworkMode.HOST_NETWORK else identity_of(one)
            for one in self.at(address)
        )

    def relocate(self, network: str | None) -> set[IPAddress]:
        """This node is in another network; returns the addresses at which something changed."""
        self._network = network
        before, self._at = self._at, {}
        for one in self._workloads.values():
            self._settle(one)
        return {
            address
            for address in before.keys() | self._at.keys()
            if before.get(address) != self._at.get(address)
        }

    def keep(self, update: Update) -> None:
        """Put an update's workloads by until `take` is called: to book 100,000 takes a second."""
        if update.complete:
            self._kept.clear()
        for uid in update.removed_workloads:
            self._kept.pop(uid, None)
        self._kept.update({one.uid: one for one in update.workloads})

    def take(self, update: Update) -> set[IPAddress]:
        """Take an update's workloads in; returns the addresses at which something changed."""
        touched: set[IPAddress] = set()
        kept, self._kept = self._kept, {}
        for one in kept.values():
            touched.update(self._settle(one))
        gone = set(update.removed_workloads) & self._workloads.keys()
        if update.complete:
            gone = self._workloads.keys() - {one.uid for one in update.workloads}
        for uid in gone:
            touched.update(self._leave(self._workloads.pop(uid)))
        for one in update.workloads:
            before = self._workloads.get(one.uid)
            if before == one:
                continue
            touched.update(self._leave(before) if before else ())
            touched.update(self._settle(one))
        return touched

    def _leave(self, workload: Workload) -> tuple[IPAddress, ...]:
        for address in workload.addresses:
            at = self._at.get(address)
            if at is not None:
                at.pop(workload.uid, None)
                if not at:
                    del self._at[address]
        return workload.addresses

    def _settle(self, workload: Workload) -> tuple[IPAddress, ...]:
        self._workloads[workload.uid] = workload
        if self._network is not None and workload.network != self._network:
            return ()
        for address in workload.addresses:
            self._at.setdefault(address, {})[workload.uid] = None
        return workload.addresses
