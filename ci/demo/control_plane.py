# SPDX-License-Identifier: Apache-2.0
"""Istiod's part, without Istiod: over real gRPC, what a real one sent, and the demo's own services.

python -m ci.demo.control_plane
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.proto.workload_pb2 import Address
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.source.istiod.xds_server import XdsServer

PORT = 15010
NODE = "node1"  # of the recording
RECORDED = Path(__file__).resolve().parents[2] / "tests/data/xds/bookstore"
# Recorded by Istiod: the service "reviews", its pods, the frontend that may reach them, and another.
REVIEWS = "10.96.59.207"
REVIEW_PODS = {"reviews-v1": "10.244.0.5", "reviews-v2": "10.244.0.9", "reviews-v3": "10.244.0.6"}
FRONTEND, WEB = "10.244.0.4", "10.244.0.2"
ORDERS_DB = "10.244.0.10"
# The demo's own: a service behind a waypoint, and one of datagrams.
CART, CLOCK, WAYPOINT = "10.96.0.30", "10.96.0.31", "10.96.0.32"
WAYPOINT_POD, WAYPOINT_PORT = "10.244.0.90", 15019
PODS = {"blue": "10.244.0.11", "green": "10.244.0.12"}
CLOCK_PORT = 1234
_NAMESPACE = "demo"
_UNKNOWN, _HTTP, _TCP = 0, 1, 4  # istio.workload.AppProtocol; the unknown may be UDP too


def _hostname(name: str) -> str:
    return f"{name}.{_NAMESPACE}.svc.cluster.local"


def _service(name: str, address: str, port: int, target: int, protocol: int) -> Any:
    made = Address()
    service = made.service
    service.name, service.namespace, service.hostname = name, _NAMESPACE, _hostname(name)
    service.addresses.add(address=ip_address(address).packed)
    service.ports.add(service_port=port, target_port=target, app_protocol=protocol)
    return made


def _pod(name: str, address: str, *serves: tuple[str, int, int]) -> Any:
    made = Address()
    pod = made.workload
    pod.uid, pod.name, pod.namespace = f"Kubernetes//Pod/{_NAMESPACE}/{name}", name, _NAMESPACE
    pod.node, pod.service_account, pod.cluster_id = NODE, name, "Kubernetes"
    pod.addresses.append(ip_address(address).packed)
    for service, port, target in serves:
        ports = pod.services[f"{_NAMESPACE}/{_hostname(service)}"].ports
        ports.add(service_port=port, target_port=target)
    return made


def own() -> Iterator[tuple[str, Any]]:
    """The demo's own resources by name."""
    cart = _service("cart", CART, 80, 8080, _HTTP)
    cart.service.waypoint.hostname.namespace = _NAMESPACE
    cart.service.waypoint.hostname.hostname = _hostname("waypoint")
    cart.service.waypoint.hbone_mtls_port = WAYPOINT_PORT
    clock = _service("clock", CLOCK, CLOCK_PORT, CLOCK_PORT, _UNKNOWN)
    waypoint = _service("waypoint", WAYPOINT, WAYPOINT_PORT, WAYPOINT_PORT, _TCP)
    for each in (cart, clock, waypoint):
        yield f"{_NAMESPACE}/{each.service.hostname}", each
    both = (("cart", 80, 8080), ("clock", CLOCK_PORT, CLOCK_PORT))
    pods = [_pod(name, address, *both) for name, address in PODS.items()]
    instance = ("waypoint", WAYPOINT_PORT, WAYPOINT_PORT)
    for each in (*pods, _pod("waypoint-0", WAYPOINT_POD, instance)):
        yield each.workload.uid, each


async def _serve() -> None:
    server = XdsServer()
    server.port = PORT
    for file in sorted(RECORDED.glob("delta-*.pb")):
        for each in DeltaDiscoveryResponse.FromString(file.read_bytes()).resources:
            content = each.resource
            server.put(content.type_url, each.name, content.value, version=each.version)
    for name, message in own():
        server.put(ADDRESS_TYPE, name, message, version="1")
    await server.start()
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
