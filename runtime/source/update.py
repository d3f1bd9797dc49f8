# SPDX-License-Identifier: Apache-2.0
"""What every source hands over: changes, in order, and whether the first picture is whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy
from runtime.model.waypoint_policies import AtWaypoints

if TYPE_CHECKING:  # who serves no HTTP does not wait for its forty classes to be made
    from runtime.model.http_picture import HttpChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A resource that could not be accepted, and why; the last good version of it stays."""

    resource: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One batch of changes: apply the removals and the additions together.

    `complete` says that services, workloads and policies are the whole picture (first sync, or a source
    that only knows whole pictures): what is not in it is gone. `accepted` names resources of
    earlier rejections that no longer hold: they are good again, or gone. `http` is complete, or not,
    by itself: it may come from another stream. None is no change of it, nor of `at_waypoints`.
    """

    services: tuple[Service, ...] = ()
    workloads: tuple[Workload, ...] = ()
    removed_services: tuple[str, ...] = ()
    removed_workloads: tuple[str, ...] = ()
    policies: tuple[Policy, ...] = ()
    removed_policies: tuple[str, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    accepted: tuple[str, ...] = ()
    complete: bool = False
    http: HttpChange | None = None
    at_waypoints: AtWaypoints | None = None


class Source(Protocol):
    """A stream of updates that never ends by itself; cancel the consumer to stop it."""

    @property
    def name(self) -> str: ...
    def updates(self) -> AsyncIterator[Update]: ...
