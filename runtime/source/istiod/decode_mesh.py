# SPDX-License-Identifier: Apache-2.0
"""`istio.workload.Address` to the model's service or workload.

A hundred thousand workloads are decoded at the first sync, so what repeats (names of namespaces
and nodes, port lists, whole service maps, localities) is built once and shared.

The wire does not say whether a port is TCP or UDP. A port whose application protocol is known
rides on TCP; any other may be either, and becomes one port of each. Where the same number comes
twice with different target ports, the first is taken.

Not turned into the model, because nothing on a node acts on them: HBONE (traffic is not wrapped in
it), extensions, `ingress_use_waypoint`. Unknown fields are ignored; enum
values that are not known read as the protocol's default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import intern
from types import MappingProxyType
from typing import Any

from runtime.model.mesh import (
    AppProtocol,
    BalancingMode,
    HealthPolicy,
    LoadBalancing,
    Locality,
    NamespacedHostname,
    NetworkAddress,
    NetworkMode,
    Protocol,
    Scope,
    Service,
    ServicePort,
    Waypoint,
    Workload,
)
from runtime.source.istiod.proto.workload_pb2 import Address
from runtime.source.istiod.wire import BadResourceError, ip_address, parse, port_number

_HTTP11, _HTTP2, _GRPC = AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC
_APP_PROTOCOLS = (AppProtocol.UNKNOWN, _HTTP11, _HTTP2, _GRPC, AppProtocol.TCP, AppProtocol.TLS)
_SCOPES = (Scope.REGION, Scope.ZONE, Scope.SUBZONE, Scope.NODE, Scope.CLUSTER, Scope.NETWORK)
_MODES = tuple(BalancingMode)
_FAMILIES = ("AUTOMATIC", "IPV4_ONLY", "IPV6_ONLY", "DUAL")
_WORKLOAD_TYPES = ("DEPLOYMENT", "CRONJOB", "POD", "JOB")
_BOTH = (Protocol.TCP, Protocol.UDP)
_TCP_ONLY = (Protocol.TCP,)
_HEALTHY = 0
_PROXY = 1  # ApplicationTunnel.Protocol
_TRUST_DOMAIN = "cluster.local"
_NO_SERVICES: Mapping[str, tuple[ServicePort, ...]] = MappingProxyType({})
_NO_LOCALITY = Locality()
_PLAIN_BALANCING = LoadBalancing()


class MeshDecoder:
    """Decodes services and workloads; keep one for a batch, what it shares lives as long."""

    def __init__(self) -> None:
        self._ports: dict[bytes, tuple[ServicePort, ...]] = {}
        self._services: dict[tuple[str | bytes, ...], Mapping[str, tuple[ServicePort, ...]]] = {}
        self._localities: dict[tuple[str, str, str], Locality] = {}

    def decode(self, name: str, payload: bytes) -> Service | Workload:
        """Turn one resource into the model.

        Args:
            name: the resource's name; what is inside must agree with it.
            payload: an `istio.workload.Address`, serialized.

        Raises:
            BadResourceError: it cannot be accepted.
        """
        address = parse(Address, payload)
        kind = address.WhichOneof("type")
        if kind == "workload":
            return self._workload(name, address.workload)
        if kind == "service":
            return self._service(name, address.service)
        raise BadResourceError("neither a workload nor a service")

    def _workload(self, name: str, wire: Any) -> Workload:
        if wire.uid != name:
            raise BadResourceError(f"its uid is {wire.uid!r}, not its name")
        waypoint = wire.waypoint if wire.HasField("waypoint") else None
        return Workload(
            uid=name,
            name=wire.name,
            namespace=intern(wire.namespace),
            addresses=tuple([ip_address(raw, where="addresses") for raw in wire.addresses]),
            hostname=intern(wire.hostname),
            network=intern(wire.network),
            services=self._service_map(wire.services),
            waypoint=None if waypoint is None else _waypoint(waypoint),
            network_gateway=_gateway(wire.network_gateway)
            if wire.HasField("network_gateway")
            else None,
            proxy_port=_proxy_port(wire.application_tunnel)
            if wire.HasField("application_tunnel")
            else 0,
            node=intern(wire.node),
            locality=self._locality(wire.locality) if wire.HasField("locality") else _NO_LOCALITY,
            cluster=intern(wire.cluster_id),
            trust_domain=intern(wire.trust_domain or _TRUST_DOMAIN),
            service_account=intern(wire.service_account),
            capacity=wire.capacity.value if wire.HasField("capacity") else 1,
            healthy=wire.status == _HEALTHY,
            network_mode=NetworkMode.HOST_NETWORK if wire.network_mode else NetworkMode.STANDARD,
            canonical_name=intern(wire.canonical_name),
            canonical_revision=intern(wire.canonical_revision),
            workload_name=intern(wire.workload_name),
            workload_type=_known(_WORKLOAD_TYPES, wire.workload_type),
            authorization_policies=tuple(map(intern, wire.authorization_policies)),
        )

    def _service_map(self, wire: Any) -> Mapping[str, tuple[ServicePort, ...]]:
        if not wire:
            return _NO_SERVICES
        flat: list[str | bytes] = []
        for key in wire:  # a protobuf map's items() is three times slower
            flat += (key, wire[key].SerializeToString(deterministic=True))
        known = self._services.get(tuple(flat))
        if known is None:
            pairs = {intern(key): self._port_list(ports) for key, ports in wire.items()}
            known = self._services[tuple(flat)] = MappingProxyType(pairs)
        return known

    def _port_list(self, wire: Any) -> tuple[ServicePort, ...]:
        key = wire.SerializeToString(deterministic=True)
        known = self._ports.get(key)
        if known is None:
            known = self._ports[key] = _ports(wire.ports)
        return known

    def _locality(self, wire: Any) -> Locality:
        key = (intern(wire.region), intern(wire.zone), intern(wire.subzone))
        return self._localities.setdefault(key, Locality(*key))

    def _service(self, name: str, wire: Any) -> Service:
        key = f"{wire.namespace}/{wire.hostname}"
        if key != name or not wire.hostname:
            raise BadResourceError(f"it is the service {key!r}, which is not its name")
        balancing = wire.HasField("load_balancing")
        return Service(
            name=intern(wire.name),
            namespace=intern(wire.namespace),
            hostname=intern(wire.hostname),
            addresses=tuple([_network_address(address) for address in wire.addresses]),
            ports=_ports(wire.ports),
            waypoints=tuple(_waypoints(wire)),
            load_balancing=_balancing(wire.load_balancing) if balancing else _PLAIN_BALANCING,
            subject_alt_names=tuple(wire.subject_alt_names),
            ip_families=_known(_FAMILIES, wire.ip_families),
            canonical=wire.canonical,
            visibility="NAMESPACE" if wire.visibility else "PUBLIC",
        )


def _known(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else names[0]


def _ports(wire: Iterable[Any]) -> tuple[ServicePort, ...]:
    ports: dict[tuple[int, Protocol], ServicePort] = {}
    for port in wire:
        number = port_number(port.service_port, where="service_port")
        target = port_number(port.target_port, where=f"target_port of port {number}", least=0)
        kind = port.app_protocol
        app = _APP_PROTOCOLS[kind] if 0 <= kind < len(_APP_PROTOCOLS) else AppProtocol.UNKNOWN
        for protocol in _BOTH if app is AppProtocol.UNKNOWN else _TCP_ONLY:
            made = ServicePort(
                service_port=number, target_port=target, protocol=protocol, app_protocol=app
            )
            ports.setdefault((number, protocol), made)
    return tuple(ports.values())


def _network_address(wire: Any) -> NetworkAddress:
    address = ip_address(wire.address, where="addresses")
    if wire.HasField("length") and wire.length != 8 * len(wire.address):
        reason = f"address {address}/{wire.length} is a block; only single addresses can be served"
        raise BadResourceError(reason)
    return NetworkAddress(address, intern(wire.network))


def _waypoints(wire: Any) -> Iterable[Waypoint]:
    if wire.weighted_waypoints:
        return [_waypoint(each.destination, weight=each.weight) for each in wire.weighted_waypoints]
    return [_waypoint(wire.waypoint)] if wire.HasField("waypoint") else []


def _proxy_port(wire: Any) -> int:
    """Where connections with a PROXY protocol header are taken; 0 where they go on as they are."""
    number = port_number(wire.port, where="port of its application tunnel", least=0)
    return number if wire.protocol == _PROXY else 0


def _gateway(wire: Any) -> Waypoint | None:
    """It is only told of: one that makes no sense costs the workload nothing."""
    try:
        return _waypoint(wire)
    except BadResourceError:
        return None


def _waypoint(wire: Any, *, weight: int = 1) -> Waypoint:
    destination: NetworkAddress | NamespacedHostname
    kind = wire.WhichOneof("destination")
    if kind == "hostname" and wire.hostname.hostname:
        name = wire.hostname
        destination = NamespacedHostname(intern(name.namespace), intern(name.hostname))
    elif kind == "address":
        destination = _network_address(wire.address)
    else:
        raise BadResourceError("its waypoint has neither an address nor a hostname")
    port = port_number(wire.hbone_mtls_port, where="port of its waypoint")
    return Waypoint(destination=destination, port=port, weight=weight)


def _balancing(wire: Any) -> LoadBalancing:
    allow_all = wire.health_policy == 1
    return LoadBalancing(
        routing_preference=tuple(
            [_SCOPES[scope - 1] for scope in wire.routing_preference if 1 <= scope <= len(_SCOPES)]
        ),
        mode=_MODES[wire.mode] if 0 <= wire.mode < len(_MODES) else BalancingMode.UNSPECIFIED,
        health_policy=HealthPolicy.ALLOW_ALL if allow_all else HealthPolicy.ONLY_HEALTHY,
    )
