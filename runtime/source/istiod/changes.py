# SPDX-License-Identifier: Apache-2.0
"""What has changed and was not taken yet: the latest state of each resource, nothing older.

The stream never waits for the consumer. A resource that changes ten times while the consumer is
busy is here once, so what is kept is bounded by the size of the mesh. One response is merged in
one step: the consumer never sees half of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy
from runtime.source.update import Rejection, Update

_T = TypeVar("_T")


@dataclass(slots=True)
class Known:
    """Names of what the consumer has."""

    services: set[str] = field(default_factory=set)
    workloads: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Changes:
    """New state by resource name; None where a resource is gone.

    `refused` holds the reason for each resource that could not be accepted, None for one that was
    refused earlier and no longer is.
    """

    services: dict[str, Service | None] = field(default_factory=dict)
    workloads: dict[str, Workload | None] = field(default_factory=dict)
    policies: dict[str, Policy | None] = field(default_factory=dict)
    refused: dict[str, str | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.services or self.workloads or self.policies or self.refused)

    def merge(self, later: Changes) -> None:
        """Let later changes replace those of the same resources."""
        self.services.update(later.services)
        self.workloads.update(later.workloads)
        self.policies.update(later.policies)
        self.refused.update(later.refused)

    def forget_unknown(self, known: Known) -> None:
        """Drop removals of what the consumer never got; note what it knows after this."""
        _learn(self.services, known.services)
        _learn(self.workloads, known.workloads)
        _learn(self.policies, known.policies)
        _learn(self.refused, known.refused)

    def to_update(self, *, complete: bool) -> Update:
        """The same as an update; a complete one needs no removals."""
        return Update(
            services=_present(self.services),
            workloads=_present(self.workloads),
            policies=_present(self.policies),
            removed_services=() if complete else _absent(self.services),
            removed_workloads=() if complete else _absent(self.workloads),
            removed_policies=() if complete else _absent(self.policies),
            rejections=tuple(
                Rejection(resource=name, reason=why) for name, why in self.refused.items() if why
            ),
            accepted=_absent(self.refused),
            complete=complete,
        )


def _present(states: Mapping[str, _T | None]) -> tuple[_T, ...]:
    return tuple([state for state in states.values() if state is not None])


def _absent(states: Mapping[str, object]) -> tuple[str, ...]:
    return tuple([name for name, state in states.items() if state is None])


def _learn(states: dict[str, _T | None], known: set[str]) -> None:
    for name in _absent(states):
        if name in known:
            known.discard(name)
        else:
            del states[name]
    known.update([name for name, state in states.items() if state is not None])


class Pending:
    """Changes between the stream and one consumer; the first that it takes is the whole picture."""

    def __init__(self) -> None:
        self._changes = Changes()
        self._known = Known()
        self._whole = asyncio.Event()
        self._ready = asyncio.Event()
        self._first = True

    def merge(self, changes: Changes) -> None:
        """Add changes; never waits."""
        self._changes.merge(changes)
        if self._changes:
            self._ready.set()

    def set_whole(self) -> None:
        """From now on the picture is whole, and may be taken; it is, even when the mesh is empty."""
        self._whole.set()
        self._ready.set()

    async def wait_whole(self) -> None:
        """Wait for the first whole picture."""
        await self._whole.wait()

    async def take(self) -> Update:
        """Wait for changes and take all there are; the first time it is the whole picture."""
        await self._whole.wait()
        while True:
            await self._ready.wait()
            changes, self._changes = self._changes, Changes()
            self._ready.clear()
            changes.forget_unknown(self._known)
            if changes or self._first:
                break
        complete, self._first = self._first, False
        return changes.to_update(complete=complete)
