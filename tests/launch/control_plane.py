# SPDX-License-Identifier: Apache-2.0
"""A control plane for a node: the test xDS server in a process of its own, which does as it is told.

It has a process because it lives in the node's network namespace; what it holds may be changed, it may
be cut off, stopped and started again, all while a daemon is connected.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.launch.actors import talking
from tests.launch.conftest import Node
from tests.source.istiod.xds_server import XdsServer

PORT = 15010
SOURCE = f"istiod:127.0.0.1:{PORT}"


class ControlPlane:
    """Tells the server what to hold; starts with nothing, and not listening.

    Args:
        node: whose control plane it is; it ends with that.
    """

    def __init__(self, node: Node) -> None:
        self._tell = talking(node, [sys.executable, "-m", "tests.launch.control_plane"])

    def start(self) -> ControlPlane:
        self._tell("start")
        return self

    def put(
        self,
        name: str,
        message: Any,
        *,
        version: str = "1",
        type_url: str = ADDRESS_TYPE,
        aliases: tuple[str, ...] = (),
    ) -> None:
        self._tell("put", type_url, name, message.SerializeToString().hex(), version, aliases)

    def put_address(
        self, message: Any, *, version: str = "1", aliases: tuple[str, ...] = ()
    ) -> None:
        """A service or a workload as tests.source.istiod.mesh_messages makes them."""
        service = message.service
        is_workload = message.WhichOneof("type") == "workload"
        name = message.workload.uid if is_workload else f"{service.namespace}/{service.hostname}"
        self.put(name, message, version=version, aliases=aliases)

    def put_bytes(self, name: str, payload: bytes, *, version: str) -> None:
        """Whatever is sent under the name of an address."""
        self._tell("put", ADDRESS_TYPE, name, payload.hex(), version, ())

    def remove(self, name: str, *, type_url: str = ADDRESS_TYPE) -> None:
        self._tell("remove", type_url, name)

    def load(self, response: Path) -> int:
        """Hold what a recorded or made response holds, beside what there is; how many that are."""
        return int(self._tell("load", str(response)))

    def clear(self, *, type_url: str = ADDRESS_TYPE) -> None:
        self._tell("clear", type_url)

    def push(self) -> None:
        self._tell("push")

    def stop(self) -> None:
        self._tell("stop")

    def state(self) -> Any:
        """Streams so far, and of the last: requests, acks and nacks."""
        return self._tell("state")


class _Server:
    """The other end: one method for each command."""

    def __init__(self) -> None:
        self._xds = XdsServer()
        self._xds.port = PORT

    async def start(self) -> None:
        await self._xds.start()

    async def stop(self) -> None:
        await self._xds.stop()

    def put(self, type_url: str, name: str, payload: str, version: str, aliases: list[str]) -> None:
        raw = bytes.fromhex(payload)
        self._xds.put(type_url, name, raw, version=version, aliases=tuple(aliases))

    def remove(self, type_url: str, name: str) -> None:
        self._xds.remove(type_url, name)

    def clear(self, type_url: str) -> None:
        self._xds.world[type_url] = {}

    def load(self, path: str) -> int:
        response = DeltaDiscoveryResponse.FromString(Path(path).read_bytes())
        for each in response.resources:
            content = each.resource
            self._xds.put(
                content.type_url, each.name, content.value,
                version=each.version, aliases=tuple(each.aliases),
            )  # fmt: skip
        return len(response.resources)

    def push(self) -> None:
        self._xds.push()

    def state(self) -> dict[str, Any]:
        streams = self._xds.streams
        last = streams[-1] if streams else None
        return {
            "streams": len(streams),
            "open": len(self._xds.open),
            "acks": len(last.acks) if last else 0,
            "nacks": [each.error_detail.message for each in last.nacks] if last else [],
            "asked": sorted(last.names.get(ADDRESS_TYPE, ())) if last else [],
            "versions_told": (
                len(last.hello(ADDRESS_TYPE).initial_resource_versions)
                if last and last.requests
                else 0
            ),
        }


async def _obey() -> None:
    server = _Server()
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        try:
            result = getattr(server, request["do"])(*request["with"])
            answer = {"result": await result if asyncio.iscoroutine(result) else result}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
    await server.stop()


if __name__ == "__main__":
    asyncio.run(_obey())
