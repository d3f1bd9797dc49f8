# SPDX-License-Identifier: Apache-2.0
"""A control plane for a test's daemon: it serves, over real gRPC, what a file names, and its changes.

Run as a program it is the server; `Istiod` starts it beside a node and changes the file.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from runtime.source.istiod.proto.security_pb2 import Authorization
from runtime.source.istiod.proto.workload_pb2 import Address
from runtime.source.istiod.wire import ADDRESS_TYPE, AUTHORIZATION_TYPE

if TYPE_CHECKING:
    from tests.launch.conftest import Node

ADDRESS = "127.0.0.1:15010"
SOURCE = f"istiod:{ADDRESS}"
_TYPES = {"Address": (ADDRESS_TYPE, Address), "Authorization": (AUTHORIZATION_TYPE, Authorization)}


def _name(message: Any) -> str:
    """The name that Istiod gives a resource."""
    if isinstance(message, Authorization):
        return f"{message.namespace}/{message.name}"
    if message.WhichOneof("type") == "workload":
        return str(message.workload.uid)
    return f"{message.service.namespace}/{message.service.hostname}"


class Istiod:
    """A server of resources; `put` and `remove` reach its clients at once."""

    def __init__(self, node: Node, *messages: Any) -> None:
        self._file = node.path / "istiod.json"
        self._held: dict[str, dict[str, Any]] = {}
        self.put(*messages)
        node.start([sys.executable, "-m", "tests.launch.istiod", str(self._file)])

    def put(self, *messages: Any) -> None:
        for message in messages:
            fields = json_format.MessageToDict(message)
            self._held[_name(message)] = {"type": type(message).__name__, "fields": fields}
        self._write()

    def remove(self, *names: str) -> None:
        for name in names:
            del self._held[name]
        self._write()

    def _write(self) -> None:
        draft = self._file.with_suffix(".new")
        draft.write_text(json.dumps(self._held))
        draft.replace(self._file)


async def _serve(file: Path) -> None:
    from tests.source.istiod.xds_server import XdsServer

    server = XdsServer()
    server.port = int(ADDRESS.rpartition(":")[2])
    held: dict[str, Any] = {}
    version = 0
    while True:
        now = json.loads(file.read_text())  # noqa: ASYNC240 - nothing else runs here
        version += 1
        for name in held.keys() - now.keys():
            server.remove(_TYPES[held[name]["type"]][0], name)
        for name, told in now.items():
            if held.get(name) != told:
                url, kind = _TYPES[told["type"]]
                message = json_format.ParseDict(told["fields"], kind())
                server.put(url, name, message, version=str(version))
        if version == 1:
            await server.start()
            print("up", flush=True)
        elif now != held:
            server.push()
        held = now
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
