# SPDX-License-Identifier: Apache-2.0
"""Short ways to write wire messages in tests."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from runtime.source.istiod.proto.security_pb2 import Authorization
from runtime.source.istiod.proto.workload_pb2 import Address

CLUSTER = "Kubernetes"


def uid(name: str, *, namespace: str = "shop") -> str:
    return f"{CLUSTER}//Pod/{namespace}/{name}"


def service_name(name: str, *, namespace: str = "shop") -> str:
    return f"{namespace}/{name}.{namespace}.svc.cluster.local"


def service(name: str, *addresses: str, ports: dict[int, int] | None = None, **fields: Any) -> Any:
    """An Address that is a service in the namespace "shop"; ports map service to target port."""
    message = Address()
    wire = message.service
    wire.name, wire.namespace = name, "shop"
    wire.hostname = f"{name}.shop.svc.cluster.local"
    for address in addresses:
        wire.addresses.add(address=ip_address(address).packed)
    for port, target in (ports or {80: 8080}).items():
        wire.ports.add(service_port=port, target_port=target, app_protocol="HTTP11")
    for field, value in fields.items():
        setattr(wire, field, value)
    return message


def workload(name: str, *addresses: str, serves: tuple[str, ...] = (), **fields: Any) -> Any:
    """An Address that is a workload in the namespace "shop", serving port 80 on 8080."""
    message = Address()
    wire = message.workload
    wire.uid, wire.name, wire.namespace = uid(name), name, "shop"
    wire.addresses.extend(ip_address(address).packed for address in addresses)
    for served in serves:
        wire.services[service_name(served)].ports.add(service_port=80, target_port=8080)
    for field, value in fields.items():
        setattr(wire, field, value)
    return message


def policy(name: str, *, namespace: str = "shop", **fields: Any) -> Any:
    """An Authorization without groups."""
    return Authorization(name=name, namespace=namespace, **fields)
