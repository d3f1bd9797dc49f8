# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.cluster.recorded_istiod DIR ADDRESSES`: an Istiod that says what a real one once said.

ADDRESSES is a JSON object of the addresses that pods had then, and have now. What is written in text (regular
expressions, say) is left alone: only endpoints and workloads have pods' addresses.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from runtime.source.envoy.messages import ENDPOINTS, ROUTES, message_class
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from runtime.source.istiod.proto.workload_pb2 import Address
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.source.istiod.ads_server import EDS, RDS, AdsServer


def fill(server: AdsServer, recording: Path, now: Mapping[str, str]) -> None:
    """Have a server say everything of a recording."""
    for path in sorted(recording.glob("delta-*.pb")):
        for each in DeltaDiscoveryResponse.FromString(path.read_bytes()).resources:
            kind, payload = each.resource.type_url, each.resource.value
            if kind == ADDRESS_TYPE:
                payload = _moved_workload(payload, now)
            server.put(kind, each.name, payload, version="1", aliases=tuple(each.aliases))
    for path in sorted(recording.glob("ads-*.pb")):
        response = DiscoveryResponse.FromString(path.read_bytes())
        for number, resource in enumerate(response.resources):
            name, payload = str(number), resource.value
            if response.type_url == EDS:
                name, payload = _moved_endpoints(payload, now)
            elif response.type_url == RDS:
                name = message_class(ROUTES).FromString(payload).name
            server.put_ads(response.type_url, name, payload)


def _moved_workload(payload: bytes, now: Mapping[str, str]) -> bytes:
    told = Address.FromString(payload)
    if told.WhichOneof("type") == "workload":
        before = [str(ip_address(each)) for each in told.workload.addresses]
        told.workload.addresses[:] = [ip_address(now.get(each, each)).packed for each in before]
    moved: bytes = told.SerializeToString()
    return moved


def _moved_endpoints(payload: bytes, now: Mapping[str, str]) -> tuple[str, bytes]:
    told = message_class(ENDPOINTS).FromString(payload)
    for group in told.endpoints:
        for each in group.lb_endpoints:
            place = each.endpoint.address.socket_address
            place.address = now.get(place.address, place.address)
    return told.cluster_name, told.SerializeToString()


async def main() -> None:
    server = AdsServer()
    server.host, server.port = "0.0.0.0", 15010
    fill(server, Path(sys.argv[1]), json.loads(sys.argv[2]))
    await server.start()
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
