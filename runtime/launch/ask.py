# SPDX-License-Identifier: Apache-2.0
"""One request as a managed process sends it: a process of its own, told line by line what to do.

Its first line says where it is to be and to connect; it answers with its socket's cookie. Its second is
the request; it answers with what came back.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from http.client import HTTPException, HTTPResponse
from typing import Any

from runtime.errors import KmeshError
from runtime.kernel.netns import enter_netns, open_netns

_SO_COOKIE = 57
_MOST = 1 << 20  # bytes of a response that are read


def _connect(told: dict[str, Any]) -> socket.socket:
    if told["netns"]:
        enter_netns(open_netns(told["netns"]))
    return socket.create_connection((told["address"], told["port"]), timeout=told["seconds"])


def _cookie(sock: socket.socket) -> int:
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0])


def _ask(sock: socket.socket, head: bytes) -> dict[str, Any]:
    sock.sendall(head)
    with HTTPResponse(sock, method=head.split(b" ", 1)[0].decode("latin-1")) as response:
        response.begin()
        body = response.read(_MOST)
        return {
            "status": response.status,
            "reason": response.headers.get("x-kmesh-reason", ""),
            "location": response.headers.get("location", ""),
            "bytes": len(body),
        }


def main() -> None:
    """Read what to do on standard input, and say what came of it."""
    try:
        sock = _connect(json.loads(sys.stdin.readline()))
        with sock:
            print(json.dumps({"cookie": _cookie(sock)}), flush=True)
            answer = _ask(sock, bytes.fromhex(sys.stdin.readline()))
    except (OSError, HTTPException, KmeshError) as error:
        answer = {"error": str(error) or type(error).__name__}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
