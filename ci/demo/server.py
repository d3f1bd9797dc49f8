# SPDX-License-Identifier: Apache-2.0
"""HTTP servers that keep connections alive and answer with their name and what they got.

python -m ci.demo.server NAME=ADDRESS:PORT...
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from functools import partial
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Server(asyncio.Protocol):
    def __init__(self, name: str) -> None:
        self._name = name
        self._head = b""
        self._missing = -1  # bytes of the body; -1 before the head is whole
        self._got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            head, ended, data = self._head.partition(b"\r\n\r\n")
            if not ended:
                return
            found = _LENGTH.search(head)
            self._missing = self._got = int(found[1]) if found else 0
        self._missing -= len(data)
        if self._missing <= 0:
            self._answer()

    def _answer(self) -> None:
        first = self._head.partition(b"\r\n")[0].decode("latin-1")
        told = json.dumps({"server": self._name, "request": first, "body": self._got}).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told) + told)
        self._head, self._missing = b"", -1


async def _serve(places: list[str]) -> None:
    loop = asyncio.get_running_loop()
    for place in places:
        name, _, where = place.partition("=")
        host, _, port = where.rpartition(":")
        await loop.create_server(partial(_Server, name), host, int(port))
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
