# SPDX-License-Identifier: Apache-2.0
"""The plan: every route of every HTTP port in its order, with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runtime.model.http import HttpPort, Route, RouteMatch
from runtime.model.mesh import IPAddress, NetworkAddress
from runtime.plan.guards import Guarding


class Place(StrEnum):
    KERNEL = "kernel"
    WAYPOINT = "waypoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRoute:
    """A route and where it runs.

    Attributes:
        route: as it was said.
        match: what the kernel recognises its requests by: at least these are its. A route in the
            kernel has its own match here.
        reasons: why it is not in the kernel, or would not be if the path ran; empty where it could.
        place: the kernel only where there is no reason and the enhanced path serves.
    """

    route: Route
    match: RouteMatch
    reasons: tuple[str, ...] = ()
    place: Place = Place.KERNEL


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedHost:
    """A virtual host.

    Attributes:
        cut: from this route on nothing fits any more: what no earlier route takes is the waypoint's.
            None where all fit.
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[PlannedRoute, ...] = ()
    cut: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPort:
    """An HTTP port.

    Attributes:
        missing: the place of a request for which there is no virtual host, or no route in it: in
            the kernel it is answered 404.
        reasons: why that is at the waypoint; empty where it is not.
    """

    port: HttpPort
    hosts: tuple[PlannedHost, ...] = ()
    ignore_port_in_host: bool = True
    missing: Place = Place.KERNEL
    reasons: tuple[str, ...] = ()


PortKey = tuple[IPAddress | None, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of it.

    Attributes:
        ports: by address (None for every address) and number.
        opaque: addresses and ports that are not HTTP, whatever a port for every address says.
        why_not: why the enhanced path does not serve; "" where it does.
        guarding: what guards the endpoints of clusters, by name, where anything does.
    """

    ports: Mapping[PortKey, PlannedPort]
    opaque: frozenset[PortKey] = frozenset()
    why_not: str = ""
    guarding: Mapping[str, Guarding] = field(default_factory=dict)

    def port_of(self, address: NetworkAddress | IPAddress, port: int) -> PlannedPort | None:
        """What governs connections to an address and port: its own, or the one for all addresses."""
        at = address.address if isinstance(address, NetworkAddress) else address
        own = self.ports.get((at, port))
        if own is not None or (at, port) in self.opaque:
            return own
        return self.ports.get((None, port))


def host_for(hosts: tuple[PlannedHost, ...], hostname: str) -> PlannedHost | None:
    """The virtual host that a request with this host goes to.

    As Envoy chooses: an exact domain, the longest suffix, the longest prefix, `*`.
    """
    wanted = hostname.lower()
    best: tuple[int, int] = (0, 0)
    found: PlannedHost | None = None
    for host in hosts:
        for domain in host.domains:
            rank = _rank(domain.lower(), wanted)
            if rank > best:
                best, found = rank, host
    return found


def _rank(domain: str, host: str) -> tuple[int, int]:
    """How well a domain fits; (0, 0) where it does not."""
    if domain == host:
        return 4, 0
    if domain == "*":
        return 1, 0
    # A wildcard stands for at least one character.
    if domain.startswith("*") and len(host) >= len(domain) and host.endswith(domain[1:]):
        return 3, len(domain)
    if domain.endswith("*") and len(host) >= len(domain) and host.startswith(domain[:-1]):
        return 2, len(domain)
    return 0, 0
