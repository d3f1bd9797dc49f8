# SPDX-License-Identifier: Apache-2.0
"""Where a request may go: clusters, how they balance, and their endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runtime.model.mesh import IPAddress, Locality

_NOWHERE = Locality()


class Balancer(StrEnum):
    ROUND_ROBIN = "ROUND_ROBIN"
    LEAST_REQUEST = "LEAST_REQUEST"
    RANDOM = "RANDOM"
    RING_HASH = "RING_HASH"
    MAGLEV = "MAGLEV"
    ORIGINAL_DESTINATION = "ORIGINAL_DESTINATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakers:
    """Bounds of a cluster, for each workload that sends to it; None for no bound."""

    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_retries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection:
    """An endpoint that fails so many times in a row is left out for a while; 0 turns a count off.

    The time out of service is `base_ejection_ms` times the number of ejections, up to `max_ejection_ms`;
    no more than `max_ejection_percent` of the endpoints are out at once (but one may be, with `always_one`).
    A connection that fails counts as a 5xx, or, with `split_local_failures`, as a local failure.
    """

    consecutive_5xx: int = 5
    consecutive_gateway_failures: int = 0
    consecutive_local_failures: int = 0
    interval_ms: int = 10_000
    base_ejection_ms: int = 30_000
    max_ejection_ms: int = 300_000
    max_ejection_percent: int = 10
    split_local_failures: bool = False
    always_one: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How endpoints whose labels have all of `labels` are spoken to; the first that fits is taken."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    plaintext: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A set of endpoints that serve one thing.

    Attributes:
        name: as routes say it (Istio: `direction|port|subset|hostname`).
        hostname, namespace: of the service that it is a part of; "" for none.
        port: of that service; 0 for none.
        subset: of that service; "" for all of it.
        endpoints_name: under which its endpoints come, where they do not come with it (`own_endpoints`).
        choices: for LEAST_REQUEST, how many endpoints are compared.
        min_ring_size, max_ring_size: for RING_HASH; `table_size` for MAGLEV.
        max_requests_per_connection: after which an upstream connection is closed; None for no bound.
        idle_timeout_ms: after which an idle upstream connection is closed; None for the default, one hour.
        panic_percent: with fewer healthy endpoints than that, all are used; 0 for never.
        locality_weighted: localities share by `HttpEndpoint.locality_weight`, endpoints within each.
        transports: None of them fits: plaintext.
        beyond: what no request to it can do without the waypoint.
    """

    name: str
    hostname: str = ""
    namespace: str = ""
    port: int = 0
    subset: str = ""
    endpoints_name: str = ""
    balancer: Balancer = Balancer.ROUND_ROBIN
    choices: int = 2
    min_ring_size: int = 1024
    max_ring_size: int = 8_388_608
    table_size: int = 65_537
    connect_timeout_ms: int = 5000
    breakers: CircuitBreakers = CircuitBreakers()
    outlier: OutlierDetection | None = None
    max_requests_per_connection: int | None = None
    idle_timeout_ms: int | None = None
    panic_percent: int = 50
    locality_weighted: bool = False
    own_endpoints: Endpoints | None = None
    transports: tuple[Transport, ...] = ()
    beyond: tuple[str, ...] = ()

    @property
    def service(self) -> str:
        """The key of the service (`namespace/hostname`), "" where it belongs to none."""
        return f"{self.namespace}/{self.hostname}" if self.hostname else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpEndpoint:
    """One endpoint; those of a higher `priority` number are used when the lower ones fail.

    `labels` choose the transport. `locality_weight` is 0 where localities are not weighted.
    """

    address: IPAddress
    port: int
    weight: int = 1
    healthy: bool = True
    locality: Locality = _NOWHERE
    locality_weight: int = 0
    priority: int = 0
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The endpoints of a cluster, by its `endpoints_name`."""

    name: str
    endpoints: tuple[HttpEndpoint, ...] = ()
    overprovisioning_percent: int = 140
    beyond: tuple[str, ...] = ()
