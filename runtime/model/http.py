# SPDX-License-Identifier: Apache-2.0
"""HTTP: which request goes where, as Envoy would decide it, free of any wire format.

A request to an address and port is governed by an `HttpPort`. Its `RouteTable` is searched with the
request's host for a `VirtualHost`: an exact domain, else the longest suffix (`*.x`), else the
longest prefix (`x.*`), else `*`; without regard to case. The first of its routes that matches takes
the request. The path of a request excludes its query. Values of a repeated header are joined with
",". A regular expression is RE2's and matches the whole value. A missing header matches nothing,
unless it counts as empty, or the match is inverted.

`beyond` says what of a thing this version cannot express, in words, each naming the field on the wire
("retry_policy: attempts 3"). What is beyond is the waypoint's: it is never left out in silence.
Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/route/v3/route_components.proto
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runtime.model.http_cluster import (
    Balancer,
    CircuitBreakers,
    Cluster,
    Endpoints,
    HttpEndpoint,
    OutlierDetection,
    Transport,
)
from runtime.model.http_rules import (
    AllOf,
    AnyOf,
    Anything,
    Condition,
    DestinationIn,
    HeaderMatch,
    Not,
    PathIs,
    PathKind,
    PathMatch,
    PortIn,
    PrincipalIs,
    QueryMatch,
    Rbac,
    RbacPolicy,
    SourceIn,
    TextKind,
    TextMatch,
)
from runtime.model.mesh import IPAddress

# The three modules are one subject, so that who reads routes needs one import.
__all__ = [
    "Abort",
    "Action",
    "AllOf",
    "AnyOf",
    "Anything",
    "Balancer",
    "CircuitBreakers",
    "Cluster",
    "Condition",
    "DestinationIn",
    "DirectResponse",
    "Endpoints",
    "EscapedSlashes",
    "Forward",
    "HashKind",
    "HashPolicy",
    "HeaderMatch",
    "HttpEndpoint",
    "HttpPort",
    "Listener",
    "Not",
    "OutlierDetection",
    "PathIs",
    "PathKind",
    "PathMatch",
    "PortIn",
    "PrincipalIs",
    "QueryMatch",
    "RateLimit",
    "Rbac",
    "RbacPolicy",
    "Redirect",
    "Route",
    "RouteMatch",
    "RouteTable",
    "SourceIn",
    "Step",
    "TextKind",
    "TextMatch",
    "Transport",
    "VirtualHost",
    "WeightedCluster",
]


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All of it must hold; `headers` and `query` in any order."""

    path: PathMatch
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """A share of `weight` in the sum of the weights of all clusters of the route."""

    name: str
    weight: int = 1


class HashKind(StrEnum):
    HEADER = "HEADER"
    COOKIE = "COOKIE"
    SOURCE_IP = "SOURCE_IP"
    QUERY = "QUERY"


@dataclass(frozen=True, slots=True, kw_only=True)
class HashPolicy:
    """What of a request chooses the endpoint; policies are combined, a terminal one ends them.

    `name` is that of the header (lower case), cookie or query parameter. A cookie with a `ttl` (in seconds, 0
    for one of the session) is made by the proxy where the request has none: the path does not make any.
    """

    kind: HashKind
    name: str = ""
    ttl: float | None = None
    cookie_path: str = ""
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class Forward:
    """To an endpoint of one of the clusters, chosen by weight."""

    clusters: tuple[WeightedCluster, ...]
    hash_policies: tuple[HashPolicy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """An answer that says where to go instead; None keeps that part of the request's URL.

    `path` replaces the whole path (with a query in it, the request's query too), `prefix` what the
    route's path match took. `https` makes the scheme https, and drops port 80 from the host.
    """

    status: int = 301
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    path: str | None = None
    prefix: str | None = None
    https: bool = False
    strip_query: bool = False


@dataclass(frozen=True, slots=True)
class DirectResponse:
    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """A fault: the share numerator/denominator of requests that match `headers` gets this status."""

    status: int
    numerator: int = 100
    denominator: int = 100
    headers: tuple[HeaderMatch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket on this node: `tokens` added each `interval_ms`, `most` at once, shared by all clients.

    A request without a token gets `status`. It is enforced for numerator/denominator of requests.
    `inherited`: the routes of a virtual host share it. `bucket` names it, where several may be meant.
    """

    most: int
    tokens: int
    interval_ms: int
    status: int = 429
    numerator: int = 100
    denominator: int = 100
    inherited: bool = False
    bucket: str = ""


Action = Forward | Redirect | DirectResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route. What is None here is as the port's filters say (see `HttpPort`).

    `tells` names the filters that it configures. What of the match cannot be expressed is left out
    of it, and told in `beyond`: so the match takes too many requests, never too few. `guards` are the
    rules of those whom it leads to: requests must pass them after all that filters do.
    """

    name: str = ""
    match: RouteMatch
    action: Action
    abort: Abort | None = None
    rate_limit: RateLimit | None = None
    rbac: tuple[Rbac, ...] | None = None
    guards: tuple[Rbac, ...] = ()
    tells: frozenset[str] = frozenset()
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VirtualHost:
    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    name: str
    virtual_hosts: tuple[VirtualHost, ...] = ()
    ignore_port_in_host: bool = True
    beyond: tuple[str, ...] = ()


class EscapedSlashes(StrEnum):
    """What becomes of %2F and %5C in a path before it is matched."""

    KEEP_UNCHANGED = "KEEP_UNCHANGED"
    REJECT_REQUEST = "REJECT_REQUEST"
    UNESCAPE_AND_REDIRECT = "UNESCAPE_AND_REDIRECT"
    UNESCAPE_AND_FORWARD = "UNESCAPE_AND_FORWARD"


class Step(StrEnum):
    """What a port's filters do to a request before it is routed."""

    RBAC = "RBAC"
    RATE_LIMIT = "RATE_LIMIT"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPort:
    """HTTP at an address (None for every address) and port: its table, and what its filters do.

    Attributes:
        listener: name of the listener resource that it comes from.
        table: name of its route table.
        rbac: rules that each request must pass, in order.
        abort: holds for routes that have none of their own; so does `rate_limit`.
        opaque_cluster: where a connection goes that is not HTTP; None when it is closed.
        normalize_path, merge_slashes, escaped_slashes: done to a path before it is matched.
        steps: in which order that is done (a step that is not among them is not taken, whatever a
            route says).
        filters: names of its HTTP filters: what a route says to one that is not here has no effect.
        beyond: what no request to this port can do without the waypoint.
    """

    listener: str
    address: IPAddress | None
    port: int
    table: str
    rbac: tuple[Rbac, ...] = ()
    abort: Abort | None = None
    rate_limit: RateLimit | None = None
    opaque_cluster: str | None = None
    normalize_path: bool = False
    merge_slashes: bool = False
    escaped_slashes: EscapedSlashes = EscapedSlashes.KEEP_UNCHANGED
    steps: tuple[Step, ...] = ()
    filters: frozenset[str] = frozenset()
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """The HTTP of one listener, which may have several addresses, or none that speaks HTTP.

    Attributes:
        tables: names of the route tables that it refers to.
        own_tables: those that it brings along.
        passed_over: why it has no HTTP port, where it has none.
        opaque: where it has none: addresses (None for all) and ports at which nothing is HTTP, whatever
            the listener for all addresses says.
    """

    name: str
    ports: tuple[HttpPort, ...] = ()
    tables: tuple[str, ...] = ()
    own_tables: tuple[RouteTable, ...] = ()
    passed_over: str = ""
    opaque: tuple[tuple[IPAddress | None, int], ...] = ()
