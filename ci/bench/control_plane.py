# SPDX-License-Identifier: Apache-2.0
"""A control plane with a mesh of one size, over real gRPC: its answer is made before it is asked.

    python -m ci.bench.control_plane SERVICES ENDPOINTS [FIRST_SERVICE [FIRST_POD]]

What it costs to make the answer is therefore no part of what is measured.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from typing import Any

import grpc
import grpc.aio

from runtime.source.istiod.proto.discovery_pb2 import (
    DESCRIPTOR,
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from runtime.source.istiod.proto.workload_pb2 import Address
from runtime.source.istiod.wire import ADDRESS_TYPE

PORT = 15010
_SERVICE = DESCRIPTOR.services_by_name["AggregatedDiscoveryService"].full_name
_FIRST_VIP, _FIRST_POD = int(IPv4Address("10.96.1.0")), int(IPv4Address("10.128.0.0"))
_HTTP2 = 2  # istio.workload.ApplicationProtocol


def service_address(number: int) -> IPv4Address:
    """Where the service with a number is."""
    return IPv4Address(_FIRST_VIP + number)


def _hostname(number: int) -> str:
    return f"service-{number}.bench.svc.cluster.local"


def _service(number: int) -> Any:
    address = Address()
    service = address.service
    service.name, service.namespace = f"service-{number}", "bench"
    service.hostname, service.canonical = _hostname(number), True
    service.addresses.add(address=service_address(number).packed)
    service.ports.add(service_port=80, target_port=8080, app_protocol=_HTTP2)
    return address


def _workload(number: int, service: int) -> Any:
    """A pod as Istiod describes it, with all that it says of each."""
    address = Address()
    pod = address.workload
    pod.uid = f"Kubernetes//Pod/bench/service-{service}-7d9f-{number}"
    pod.name, pod.namespace = f"service-{service}-7d9f-{number}", "bench"
    pod.addresses.append(IPv4Address(_FIRST_POD + number).packed)
    pod.node, pod.cluster_id = f"node-{number % 500}", "Kubernetes"
    pod.trust_domain, pod.service_account = "cluster.local", f"service-{service}"
    pod.canonical_name, pod.canonical_revision = f"service-{service}", "latest"
    pod.workload_name = f"service-{service}"
    pod.services[f"bench/{_hostname(service)}"].ports.add(
        service_port=80, target_port=8080, app_protocol=_HTTP2
    )
    return address


def whole_mesh(services: int, endpoints: int, *, first: int = 0, first_pod: int = 0) -> bytes:
    """The response that tells of everything, serialized.

    Args:
        services: how many there are.
        endpoints: of each.
        first: the number of the first service, from which its name and address follow.
        first_pod: added to every pod's number.
    """
    response = DeltaDiscoveryResponse(type_url=ADDRESS_TYPE, nonce="1")

    def add(name: str, message: Any) -> None:
        resource = response.resources.add(name=name, version="1")
        resource.resource.type_url = ADDRESS_TYPE
        resource.resource.value = message.SerializeToString()

    for service in range(first, first + services):
        add(f"bench/{_hostname(service)}", _service(service))
        for number in range(service * endpoints, (service + 1) * endpoints):
            pod = _workload(first_pod + number, service)
            add(pod.workload.uid, pod)
    return bytes(response.SerializeToString())


async def _serve(mesh: bytes) -> None:
    async def stream(requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            if request.response_nonce:
                continue
            empty = DeltaDiscoveryResponse(type_url=request.type_url, nonce="1")
            whole = request.type_url == ADDRESS_TYPE
            yield mesh if whole else empty.SerializeToString()

    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(
        stream, request_deserializer=DeltaDiscoveryRequest.FromString
    )
    handlers = {"DeltaAggregatedResources": method}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    await server.start()
    print("up", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    sizes = [int(each) for each in (*sys.argv[1:], "0", "0")][:4]
    asyncio.run(_serve(whole_mesh(*sizes[:2], first=sizes[2], first_pod=sizes[3])))
