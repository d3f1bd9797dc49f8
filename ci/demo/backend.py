# SPDX-License-Identifier: Apache-2.0
"""A backend that answers every request with its name.

python -m ci.demo.backend NAME ADDRESS:PORT...
"""

from __future__ import annotations

import asyncio
import sys


async def _serve(name: str, places: list[str]) -> None:
    body = f"{name}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    for place in places:
        host, _, port = place.rpartition(":")
        await asyncio.start_server(answer, host.strip("[]"), int(port))
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2:]))
