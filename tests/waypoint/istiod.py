# SPDX-License-Identifier: Apache-2.0
"""A control plane of its own process, on a Unix socket: `python -m tests.waypoint.istiod SOCKET`.

It sends what was recorded. Each line that it reads is what the route "rewritten" rewrites its prefix to from then on.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc.aio

from runtime.source.envoy.messages import ROUTES
from tests.source.istiod.ads_server import RDS, AdsServer
from tests.source.istiod.xds_server import SERVICE
from tests.waypoint.bookstore import changed, recorded


def rewritten(prefix: str) -> bytes:
    """The route table of port 9080 with another prefix."""

    def rewrite(wire: Any) -> None:
        for host in wire.virtual_hosts:
            for route in host.routes:
                if route.name == "rewritten":
                    route.route.prefix_rewrite = prefix

    return changed(recorded(), ROUTES, "9080", rewrite)[RDS]["9080"]


async def main(path: str) -> None:
    control = AdsServer()
    for kind, resources in recorded().items():
        for name, payload in resources.items():
            control.put_ads(kind, name, payload)
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(SERVICE, control._methods())
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print("up", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        control.put_ads(RDS, "9080", rewritten(line.strip()))
        control.push_ads(RDS)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
