# SPDX-License-Identifier: Apache-2.0
"""A backend that answers every request, or datagram, with its name.

python -m ci.demo.backend NAME [udp/]ADDRESS:PORT...
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        del data
        if self._transport:
            self._transport.sendto(self._answer, addr)


async def _serve(name: str, places: list[str]) -> None:
    body = f"{name}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    for place in places:
        host, _, port = place.removeprefix("udp/").rpartition(":")
        if place.startswith("udp/"):
            loop = asyncio.get_running_loop()
            where = (host, int(port))
            await loop.create_datagram_endpoint(lambda: _Datagrams(body), local_addr=where)
            continue
        await asyncio.start_server(answer, host.strip("[]"), int(port))
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2:]))
