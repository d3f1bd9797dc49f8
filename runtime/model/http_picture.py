# SPDX-License-Identifier: Apache-2.0
"""All HTTP that is known, and changes to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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


@dataclass(slots=True)
class HttpPicture:
    """What is known now, by name.

    Attributes:
        known: a whole picture has come; before, nothing can be said of any service.
    """

    listeners: Mapping[str, Listener] = field(default_factory=dict)
    tables: Mapping[str, RouteTable] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoints] = field(default_factory=dict)
    known: bool = False

    def take(self, change: HttpChange) -> None:
        """Bring a change in. Tables are replaced, never changed: who holds a copy keeps it."""
        whole = change.complete
        self.listeners = _bring(self.listeners, change.listeners, whole=whole)
        self.tables = _bring(self.tables, change.tables, whole=whole)
        self.clusters = _bring(self.clusters, change.clusters, whole=whole)
        self.endpoints = _bring(self.endpoints, change.endpoints, whole=whole)
        self.known = self.known or whole

    def copy(self) -> HttpPicture:
        """The same, that no later change shows in."""
        return replace(self)

    def ports(self) -> dict[tuple[IPAddress | None, int], HttpPort]:
        """Every HTTP port, by address (None for all) and number."""
        ports = (port for name in sorted(self.listeners) for port in self.listeners[name].ports)
        return {(port.address, port.port): port for port in ports}

    def opaque(self) -> frozenset[tuple[IPAddress | None, int]]:
        """Addresses and ports that a listener of their own says not to be HTTP."""
        return frozenset(where for each in self.listeners.values() for where in each.opaque)

    def table_of(self, port: HttpPort) -> RouteTable | None:
        """A port's route table: one that its listener brings along, or one by name."""
        listener = self.listeners.get(port.listener)
        own = listener.own_tables if listener else ()
        return next((each for each in own if each.name == port.table), self.tables.get(port.table))

    def endpoints_of(self, cluster: Cluster) -> Endpoints | None:
        """A cluster's endpoints; None where they have not come yet."""
        return cluster.own_endpoints or self.endpoints.get(cluster.endpoints_name)


def _bring(
    held: Mapping[str, _T], change: Mapping[str, _T | None], *, whole: bool
) -> Mapping[str, _T]:
    if not (change or whole):
        return held
    merged: dict[str, _T | None] = {**({} if whole else held), **change}
    return {name: state for name, state in merged.items() if state is not None}
