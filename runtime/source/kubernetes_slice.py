# SPDX-License-Identifier: Apache-2.0
"""Kubernetes `EndpointSlice` (discovery.k8s.io/v1): some of a service's endpoints."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.model.mesh import IPAddress, Protocol
from runtime.source.fields import Field
from runtime.source.kubernetes_service import parse_protocol, service_key

_SERVICE_LABEL = "kubernetes.io/service-name"
_VERSIONS = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePort:
    """A port of all endpoints of a slice; `name` is the service port's, "" for the only one.

    `number` is None when the slice leaves it out: then the service's target port holds.
    """

    name: str
    protocol: Protocol
    number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEndpoint:
    """One endpoint: its addresses are interchangeable.

    `ready` takes new connections. One that is `serving` while `terminating` takes them only
    where nothing is ready (KEP-1669).
    """

    addresses: tuple[IPAddress, ...]
    ready: bool = True
    draining: bool = False
    pod: str = ""
    hostname: str = ""
    node: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSlice:
    name: str
    namespace: str
    service: str  # the service's key
    ports: tuple[SlicePort, ...]
    endpoints: tuple[SliceEndpoint, ...]


def parse_slice(document: Field, *, name: str, namespace: str) -> EndpointSlice:
    """Read an EndpointSlice. Zone hints need no reading: each endpoint brings its own zone.

    Raises:
        FieldError: a field is wrong, or the slice belongs to no service.
    """
    label = document.get("metadata").get("labels").label(_SERVICE_LABEL)
    if not label.given:
        raise label.error("missing: it names the Service that this slice belongs to")
    family = document.get("addressType").choice("IPv4", "IPv6", "FQDN")
    if family == "FQDN":
        raise document.get("addressType").error("names are not resolved here: give IPv4 or IPv6")
    endpoints = document.get("endpoints").items()
    return EndpointSlice(
        name=name,
        namespace=namespace,
        service=service_key(label.name(), namespace),
        ports=tuple(_port(item) for item in document.get("ports").items()),
        endpoints=tuple(_endpoint(item, version=_VERSIONS[family]) for item in endpoints),
    )


def _port(item: Field) -> SlicePort:
    number = item.get("port")
    return SlicePort(
        name=item.get("name").string(default=""),
        protocol=parse_protocol(item.get("protocol")),
        number=number.integer(low=1, high=65535) if number.given else None,
    )


def _endpoint(item: Field, *, version: int) -> SliceEndpoint:
    conditions = item.get("conditions")
    ready = conditions.get("ready").boolean(default=True)
    terminating = conditions.get("terminating").boolean(default=False)
    serving = conditions.get("serving").boolean(default=ready)
    target = item.get("targetRef")
    is_pod = target.get("kind").string(default="") == "Pod"
    return SliceEndpoint(
        addresses=_addresses(item.get("addresses"), version=version),
        ready=ready,
        draining=serving and terminating and not ready,
        pod=target.get("name").name() if is_pod else "",
        hostname=item.get("hostname").string(default=""),
        node=item.get("nodeName").string(default=""),
        zone=item.get("zone").string(default=""),
    )


def _addresses(field: Field, *, version: int) -> tuple[IPAddress, ...]:
    addresses = []
    for item in field.items():
        address = item.address()
        if address.version != version:
            raise item.error(f"{address} is not of the slice's addressType IPv{version}")
        addresses.append(address)
    if not addresses:
        raise field.error("missing, must be a list of addresses")
    return tuple(addresses)
