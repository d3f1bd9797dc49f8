# SPDX-License-Identifier: Apache-2.0
"""Kubernetes `Service` (core/v1) to the model's service."""

from __future__ import annotations

from runtime.model.mesh import (
    AppProtocol,
    BalancingMode,
    LoadBalancing,
    NetworkAddress,
    Protocol,
    Scope,
    Service,
    ServicePort,
)
from runtime.source.fields import Field

DOMAIN = "cluster.local"

_NEAR = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
# As Istio reads them: https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-distribution
_DISTRIBUTION = {
    "PreferClose": LoadBalancing(mode=BalancingMode.FAILOVER, routing_preference=_NEAR),
    "PreferSameZone": LoadBalancing(mode=BalancingMode.FAILOVER, routing_preference=_NEAR),
    "PreferSameNode": LoadBalancing(
        mode=BalancingMode.FAILOVER, routing_preference=(*_NEAR, Scope.NODE)
    ),
}
_LOCAL = LoadBalancing(mode=BalancingMode.STRICT, routing_preference=(Scope.NODE,))

_APP_PROTOCOLS = {
    "http": AppProtocol.HTTP11,
    "kubernetes.io/ws": AppProtocol.HTTP11,
    "http2": AppProtocol.HTTP2,
    "kubernetes.io/h2c": AppProtocol.HTTP2,
    "grpc": AppProtocol.GRPC,
    "grpc-web": AppProtocol.HTTP11,
    "https": AppProtocol.TLS,
    "tls": AppProtocol.TLS,
    "kubernetes.io/wss": AppProtocol.TLS,
    "tcp": AppProtocol.TCP,
}


def hostname(name: str, namespace: str) -> str:
    return f"{name}.{namespace}.svc.{DOMAIN}"


def service_key(name: str, namespace: str) -> str:
    """The key that the model's service of this name has."""
    return f"{namespace}/{hostname(name, namespace)}"


def parse_service(document: Field, *, name: str, namespace: str) -> Service:
    """Read a Service; a headless one has no addresses.

    Raises:
        FieldError: a field is wrong, or the service is of a kind that has no address to serve.
    """
    spec = document.get("spec")
    kind = spec.get("type")
    choices = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
    if kind.choice(*choices, default="ClusterIP") == "ExternalName":
        raise kind.error(
            "an ExternalName service is a DNS alias with no address of its own: there is nothing to balance"
        )
    return Service(
        name=name,
        namespace=namespace,
        hostname=hostname(name, namespace),
        addresses=_addresses(spec),
        ports=_ports(spec.get("ports")),
        load_balancing=_load_balancing(spec),
        selector=labels_of(spec.get("selector")),
    )


def labels_of(field: Field) -> tuple[tuple[str, str], ...]:
    """Labels, by name."""
    if field.given and not isinstance(field.value, dict):
        raise field.error("must be a mapping")
    return tuple(sorted((str(name), field.label(name).string()) for name in field.value or ()))


def _addresses(spec: Field) -> tuple[NetworkAddress, ...]:
    many, one = spec.get("clusterIPs"), spec.get("clusterIP")
    fields = list(many.items()) or ([one] if one.given and one.value != "" else [])
    if not fields:
        raise one.error(
            "missing, and no API server is here to assign one: "
            "write an address such as 10.96.0.10, or None for a headless service"
        )
    if fields[0].value == "None":
        return ()
    addresses = [field.address() for field in fields]
    if len(set(addresses)) != len(addresses):
        raise many.error("the same address twice")
    return tuple(NetworkAddress(address) for address in addresses)


def _ports(field: Field) -> tuple[ServicePort, ...]:
    seen: set[tuple[int, Protocol]] = set()
    names: set[str] = set()
    ports = []
    for item in field.items():
        port = _port(item)
        if (port.service_port, port.protocol) in seen:
            raise item.error(f"port {port.service_port}/{port.protocol} is there twice")
        if port.name in names:
            missing = item.error("a name is needed where there is more than one port")
            raise item.get("name").error(f"{port.name!r} is there twice") if port.name else missing
        seen.add((port.service_port, port.protocol))
        names.add(port.name)
        ports.append(port)
    return tuple(ports)


def _port(item: Field) -> ServicePort:
    number = item.get("port").integer(low=1, high=65535)
    return ServicePort(
        service_port=number,
        target_port=_target_port(item.get("targetPort"), default=number),
        protocol=parse_protocol(item.get("protocol")),
        app_protocol=_app_protocol(item),
        name=item.get("name").string(default=""),
    )


def parse_protocol(field: Field) -> Protocol:
    if field.choice("TCP", "UDP", "SCTP", default="TCP") == "SCTP":
        raise field.error("SCTP is not supported; TCP and UDP are")
    return Protocol(field.string(default="TCP"))


def _target_port(field: Field, *, default: int) -> int:
    """A number, or 0 for a name: the EndpointSlice says what it is on each endpoint."""
    if not field.given:
        return default
    if isinstance(field.value, str):
        field.name()
        return 0
    return field.integer(low=1, high=65535)


def _app_protocol(item: Field) -> AppProtocol:
    """The field `appProtocol`, else the port's name up to its first dash, as Istio has it."""
    declared = item.get("appProtocol").string(default="").lower()
    prefix = item.get("name").string(default="").split("-", maxsplit=1)[0]
    return _APP_PROTOCOLS.get(declared or prefix, AppProtocol.UNKNOWN)


def _load_balancing(spec: Field) -> LoadBalancing:
    policy = spec.get("internalTrafficPolicy").choice("Cluster", "Local", default="Cluster")
    if policy == "Local":
        return _LOCAL
    return _DISTRIBUTION.get(spec.get("trafficDistribution").string(default=""), LoadBalancing())
