# SPDX-License-Identifier: Apache-2.0
"""All HTTP that is known, and changes to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from runtime.model.http import Cluster, Endpoints, HttpPort, Listener, RouteTable
from runtime.model.mesh import IPAddress

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpChange:
    """New state by name, None for what is gone; with `complete`, what is not in it is gone too."""

    listeners: Mapping[str, Listener | None] = field(default_factory=dict)
    tables: Mapping[str, RouteTable | None] = field(default_factory=dict)
    clusters: Mapping[str, Cluster | None] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoints | None] = field(default_factory=dict)
    complete: bool = False

    def __bool__(self) -> bool:
        changed = self.listeners or self.tables or self.clusters or self.endpoints
        return bool(changed) or self.complete


NO_CHANGE = HttpChange()


@dataclass(slots=True)
class HttpPicture:
    """What is known now, by name.

    Attributes:
        known: a whole picture has come; before, nothing can be said of any service.
    """

    listeners: dict[str, Listener] = field(default_factory=dict)
    tables: dict[str, RouteTable] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    endpoints: dict[str, Endpoints] = field(default_factory=dict)
    known: bool = False

    def take(self, change: HttpChange) -> None:
        """Bring a change in."""
        if change.complete:
            self.listeners, self.tables, self.clusters, self.endpoints = {}, {}, {}, {}
            self.known = True
        _bring(self.listeners, change.listeners)
        _bring(self.tables, change.tables)
        _bring(self.clusters, change.clusters)
        _bring(self.endpoints, change.endpoints)

    def copy(self) -> HttpPicture:
        """The same, that no later change shows in."""
        return HttpPicture(
            listeners=dict(self.listeners),
            tables=dict(self.tables),
            clusters=dict(self.clusters),
            endpoints=dict(self.endpoints),
            known=self.known,
        )

    def ports(self) -> dict[tuple[IPAddress | None, int], HttpPort]:
        """Every HTTP port, by address (None for all) and number."""
        ports = (port for name in sorted(self.listeners) for port in self.listeners[name].ports)
        return {(port.address, port.port): port for port in ports}

    def table_of(self, port: HttpPort) -> RouteTable | None:
        """A port's route table: one that its listener brings along, or one by name."""
        listener = self.listeners.get(port.listener)
        own = listener.own_tables if listener else ()
        return next((each for each in own if each.name == port.table), self.tables.get(port.table))

    def endpoints_of(self, cluster: Cluster) -> Endpoints | None:
        """A cluster's endpoints; None where they have not come yet."""
        return cluster.own_endpoints or self.endpoints.get(cluster.endpoints_name)


def _bring(held: dict[str, _T], change: Mapping[str, _T | None]) -> None:
    for name, state in change.items():
        if state is None:
            held.pop(name, None)
        else:
            held[name] = state
