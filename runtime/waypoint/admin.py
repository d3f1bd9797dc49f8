# SPDX-License-Identifier: Apache-2.0
"""Asking Envoy's admin interface, over its Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

_SECONDS = 5.0


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(str(self._path))


def ask(path: Path, target: str) -> tuple[int, bytes]:
    """A GET request; its status and body, (0, b"") where nobody answers in time."""
    connection = _Unix(path)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def is_ready(path: Path) -> bool:
    """Whether it serves: it was told all it needs."""
    return ask(path, "/ready")[0] == 200


def version(path: Path) -> str:
    """Which Envoy it is; "" where it does not say."""
    status, body = ask(path, "/server_info")
    if status != 200:
        return ""
    try:  # COMMIT/VERSION/STATUS/BUILD/LIBRARY
        return str(json.loads(body)["version"]).split("/")[1]
    except (ValueError, KeyError, IndexError):
        return ""
