# SPDX-License-Identifier: Apache-2.0
"""Asking the running daemon: over its Unix socket, or over a connection that somebody else makes."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runtime.errors import KmeshError

_SECONDS = 15


class DaemonDownError(KmeshError):
    """No daemon answers."""


class DaemonError(KmeshError):
    """The daemon answered that it cannot.

    Attributes:
        status: the HTTP status.
        body: what it said, decoded from JSON where it is that.
    """

    def __init__(self, message: str, *, hint: str | None, status: int, body: Any) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.body = body


Connect = Callable[[], socket.socket]


class _Connection(http.client.HTTPConnection):
    def __init__(self, connect: Connect, *, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._make = connect
        self._seconds = seconds

    def connect(self) -> None:
        self.sock = self._make()
        self.sock.settimeout(self._seconds)


def _unix(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(_SECONDS)
        made.connect(str(path))
    except BaseException:
        made.close()
        raise
    return made


class Client:
    """Requests to the daemon behind a Unix socket.

    Args:
        path: of the socket.
        connect: makes a connection in place of the socket's.
        where: what to call the daemon then.
    """

    def __init__(self, path: Path, *, connect: Connect | None = None, where: str = "") -> None:
        self._path = path
        self._connect = connect or (lambda: _unix(path))
        self._where = where or str(path)
        self.is_remote = connect is not None

    def get(self, path: str, *, seconds: float = _SECONDS) -> Any:
        """What the daemon says at a path.

        Args:
            path: with its query.
            seconds: how long to wait for it to say something.

        Raises:
            DaemonDownError: nobody answers.
            DaemonError: the answer is an error.
        """
        return self._ask("GET", path, None, seconds=seconds)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Tell the daemon to do something; raises as `get` does."""
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None, *, seconds: float = _SECONDS) -> Any:
        connection = _Connection(self._connect, seconds=seconds)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            text = response.read().decode()
        except PermissionError as error:
            hint = "the socket is root's: use sudo"
            raise DaemonDownError(f"not allowed to use {self._path}", hint=hint) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._down(error) from error
        finally:
            connection.close()
        return _decode(response, text)

    def _down(self, error: Exception) -> DaemonDownError:
        if isinstance(error, TimeoutError):
            return DaemonDownError(
                f"the kmesh daemon at {self._where} does not answer",
                hint="its log says what it is at; it may be starting, or hang",
            )
        return DaemonDownError(
            f"no kmesh daemon answers at {self._where}",
            hint="start one (kmesh run --source files:DIR), or set KMESH_RUN_DIR to where it runs",
        )


def _decode(response: http.client.HTTPResponse, text: str) -> Any:
    is_json = response.headers.get_content_type() == "application/json"
    data = json.loads(text) if is_json else text
    if response.status < 400:
        return data
    fields = data if isinstance(data, dict) else {"error": str(data).strip()}
    message = fields.get("error") or fields.get("reason") or f"status {response.status}"
    raise DaemonError(message, hint=fields.get("hint"), status=response.status, body=data)
