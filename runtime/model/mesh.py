# SPDX-License-Identifier: Apache-2.0
"""Services and workloads, the two halves of L4 configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address


class Protocol(StrEnum):
    TCP = "TCP"
    UDP = "UDP"


class AppProtocol(StrEnum):
    UNKNOWN = "UNKNOWN"
    HTTP11 = "HTTP11"
    HTTP2 = "HTTP2"
    GRPC = "GRPC"
    TCP = "TCP"
    TLS = "TLS"


class Scope(StrEnum):
    """How near an endpoint is, as a service may prefer it."""

    REGION = "REGION"
    ZONE = "ZONE"
    SUBZONE = "SUBZONE"
    NODE = "NODE"
    CLUSTER = "CLUSTER"
    NETWORK = "NETWORK"


class BalancingMode(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    STRICT = "STRICT"
    FAILOVER = "FAILOVER"
    PASSTHROUGH = "PASSTHROUGH"


class HealthPolicy(StrEnum):
    ONLY_HEALTHY = "ONLY_HEALTHY"
    ALLOW_ALL = "ALLOW_ALL"


class NetworkMode(StrEnum):
    STANDARD = "STANDARD"
    HOST_NETWORK = "HOST_NETWORK"


@dataclass(frozen=True, slots=True)
class NetworkAddress:
    """An address and the network in which it means something ("" for the default one)."""

    address: IPAddress
    network: str = ""

    def __str__(self) -> str:
        return f"{self.network}/{self.address}"


@dataclass(frozen=True, slots=True)
class NamespacedHostname:
    namespace: str
    hostname: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.hostname}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waypoint:
    """Where an L7 proxy for a service or workload is reached: by address or by hostname."""

    destination: NetworkAddress | NamespacedHostname
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancing:
    routing_preference: tuple[Scope, ...] = ()
    mode: BalancingMode = BalancingMode.UNSPECIFIED
    health_policy: HealthPolicy = HealthPolicy.ONLY_HEALTHY


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """A port that a service listens on; a workload may override the target port."""

    service_port: int
    target_port: int = 0
    protocol: Protocol = Protocol.TCP
    app_protocol: AppProtocol = AppProtocol.UNKNOWN
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A named set of workloads behind addresses and ports; `key` is its resource name.

    `selector` has labels that all of its workloads have.
    """

    name: str
    namespace: str
    hostname: str
    addresses: tuple[NetworkAddress, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    waypoints: tuple[Waypoint, ...] = ()
    load_balancing: LoadBalancing = field(default_factory=LoadBalancing)
    subject_alt_names: tuple[str, ...] = ()
    ip_families: str = "AUTOMATIC"
    canonical: bool = True
    visibility: str = "PUBLIC"
    selector: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.hostname}"


@dataclass(frozen=True, slots=True)
class Locality:
    region: str = ""
    zone: str = ""
    subzone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One instance: a pod, a virtual machine, an external address; `uid` is its resource name.

    `services` maps a service's key to the ports on which this workload serves it. `proxy_port` is
    where it takes connections that begin with a PROXY protocol header, 0 where that is not said.
    `network_gateway` is how other networks reach it. With `all_labels` it has no others than `labels`.
    """

    uid: str
    name: str
    namespace: str
    addresses: tuple[IPAddress, ...] = ()
    hostname: str = ""
    network: str = ""
    services: Mapping[str, tuple[ServicePort, ...]] = field(default_factory=dict)
    waypoint: Waypoint | None = None
    network_gateway: Waypoint | None = None
    proxy_port: int = 0
    node: str = ""
    locality: Locality = Locality()
    cluster: str = ""
    trust_domain: str = "cluster.local"
    service_account: str = ""
    capacity: int = 1
    healthy: bool = True
    network_mode: NetworkMode = NetworkMode.STANDARD
    canonical_name: str = ""
    canonical_revision: str = ""
    workload_name: str = ""
    workload_type: str = "POD"
    authorization_policies: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    all_labels: bool = False
