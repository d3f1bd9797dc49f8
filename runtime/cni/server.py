# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of the plugin's socket: one request a connection, one thread each."""

from __future__ import annotations

import os
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runtime import log
from runtime.cni.request import LARGEST, OK, CniRequest, RequestError, failure
from runtime.errors import KmeshError

SOCKET = "cni.sock"
_SECONDS = 10.0

_log = log.get("cni")

Handle = Callable[[CniRequest], str]


class CniServer:
    """Answers the plugin until closed.

    Args:
        path: of the socket; for its owner only.
        handle: does what is asked, in a thread of the request's; returns what is wrong, "" for nothing.

    Raises:
        KmeshError: the socket cannot be made.
    """

    def __init__(self, path: Path, handle: Handle) -> None:
        self._path = path
        handler = type("Handler", (_Handler,), {"handle_request": staticmethod(handle)})
        before = os.umask(0o177)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.unlink(missing_ok=True)
            self._server = _Server(str(path), handler)
        except OSError as error:
            raise KmeshError(f"cannot listen on {path}: {error.strerror or error}") from error
        finally:
            os.umask(before)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="cni",
            daemon=True,
        )
        self._thread.start()

    def close(self, *, remove: bool) -> None:
        """Answer no more. Idempotent.

        Args:
            remove: also the socket. Where it stays, plugins wait a little for the next daemon.
        """
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if remove:
            self._path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, _request: object, _client: object) -> None:
        _log.debug("a request was broken off", exc_info=True)


class _Handler(socketserver.BaseRequestHandler):
    handle_request: Handle

    def handle(self) -> None:
        self.request.settimeout(_SECONDS)
        answer = self._answer()
        with suppress(OSError):  # the plugin lost patience
            self.request.sendall(answer)

    def _answer(self) -> bytes:
        try:
            request = CniRequest.parse(self._read())
        except RequestError as error:
            return failure(str(error))
        try:
            wrong = type(self).handle_request(request)
        except KmeshError as error:
            wrong = str(error)
        except Exception as error:  # noqa: BLE001 - one request must not end the daemon's server
            _log.exception("%s of %s/%s failed", request.command, request.namespace, request.pod)
            wrong = f"{type(error).__name__}: {error}"
        return failure(wrong, again=True) if wrong else OK

    def _read(self) -> bytes:
        found = b""
        while b"\n\n" not in found and len(found) < LARGEST:
            more = self.request.recv(4096)
            if not more:
                break
            found += more
        return found
