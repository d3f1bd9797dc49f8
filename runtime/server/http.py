# SPDX-License-Identifier: Apache-2.0
"""HTTP on a loopback port or a Unix socket, one thread a connection, by the standard library."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from runtime import log
from runtime.errors import KmeshError

_LARGEST_BODY = 1 << 16
_IDLE_SECONDS = 30

_log = log.get("server")


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: text goes out as it is, anything else as JSON."""

    body: Any
    status: int = 200
    content_type: str = ""

    def encode(self) -> tuple[bytes, str]:
        if isinstance(self.body, bytes):
            return self.body, self.content_type or "application/octet-stream"
        if isinstance(self.body, str):
            plain = self.content_type or "text/plain; charset=utf-8"
            return self.body.encode(errors="replace"), plain
        text = json.dumps(self.body, indent=2, ensure_ascii=False, default=str)
        # The name of a file need not be UTF-8: no answer fails at that.
        return text.encode(errors="replace") + b"\n", "application/json"


Route = Callable[[Request], Reply]
Routes = Mapping[tuple[str, str], Route]  # method, path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "kmesh"
    sys_version = ""
    timeout = _IDLE_SECONDS
    routes: Routes = MappingProxyType({})

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        body, content_type = (reply := self._reply(method)).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reply(self, method: str) -> Reply:
        address = urlsplit(self.path)
        path = address.path.rstrip("/") or "/"
        try:
            data = self._body()
        except ValueError as error:
            self.close_connection = True
            return _failure(400, str(error))
        route = self.routes.get((method, path))
        if route is None:
            return self._no_route(path)
        return _guarded(route, Request(path, dict(parse_qsl(address.query)), data))

    def _no_route(self, path: str) -> Reply:
        allowed = [method for method, known in self.routes if known == path]
        if allowed:
            return _failure(405, f"{path} takes {', '.join(allowed)}")
        return _failure(404, f"nothing at {path}; GET / lists what there is")

    def _body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= _LARGEST_BODY:
            raise ValueError(f"a body may have {_LARGEST_BODY} bytes")
        data = json.loads(self.rfile.read(length)) if length else {}
        if not isinstance(data, dict):
            raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the client's fault
        return data

    def address_string(self) -> str:
        return str(self.client_address)  # a Unix socket's client has no address to take apart

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        _log.debug("%s %s", self.address_string(), format % args)


def _failure(status: int, reason: str) -> Reply:
    return Reply({"error": reason}, status)


def _guarded(route: Route, request: Request) -> Reply:
    try:
        return route(request)
    except KmeshError as error:
        return Reply({"error": str(error), "hint": error.hint}, 409)
    except Exception as error:  # noqa: BLE001 - one request must not end the daemon's server
        _log.exception("%s failed", request.path)
        return _failure(500, f"{type(error).__name__}: {error}")


class _Quiet:
    """A client that leaves in the middle of things is its own affair, and no fault to print."""

    def handle_error(self, _request: object, client_address: object) -> None:
        _log.debug("request of %s broken off", client_address, exc_info=True)


class _TcpServer(_Quiet, socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


class _Tcp6Server(_TcpServer):
    address_family = socket.AF_INET6


class _UnixServer(_Quiet, socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class Server:
    """Serves routes until closed; threads of its own do the work."""

    def __init__(self, server: socketserver.BaseServer, *, where: str) -> None:
        self.where = where
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.1}, name=where, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Take no more requests. Idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(routes: Routes) -> type[_Handler]:
    return type("Handler", (_Handler,), {"routes": routes})


def parse_address(text: str, *, loopback_only: bool = True) -> tuple[str, int]:
    """Take apart "127.0.0.1:15200", "[::1]:15200" or "localhost:15200".

    Args:
        text: what the user wrote.
        loopback_only: whether others than this node's processes must be kept out.

    Raises:
        KmeshError: it is malformed, or not a loopback address where it must be.
    """
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
        number = int(port)
    except ValueError:
        hint = "write ADDRESS:PORT, such as 127.0.0.1:15200"
        raise KmeshError(f"{text!r} is no address to listen on", hint=hint) from None
    if (loopback_only and not loopback) or not 0 <= number <= 65535:
        raise KmeshError(
            f"{text!r} is not a loopback address with a port", hint="use 127.0.0.1:PORT"
        )
    return host, number


def serve_tcp(address: str, routes: Routes, *, loopback_only: bool = True) -> Server:
    """Serve on a loopback address, or on any where that does no harm.

    Raises:
        KmeshError: it is not one, or it is taken.
    """
    host, port = parse_address(address, loopback_only=loopback_only)
    kind = _Tcp6Server if ":" in host else _TcpServer
    try:
        server = kind((host, port), _handler(routes))
    except OSError as error:
        hint = "another daemon may run here; choose another port, or end that one"
        raise KmeshError(f"cannot listen on {address}: {error.strerror}", hint=hint) from error
    bound = server.server_address[1]
    return Server(server, where=f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}")


def serve_unix(path: Path, routes: Routes) -> Server:
    """Serve on a Unix socket that only its owner may use; one that is there is replaced.

    Raises:
        KmeshError: it cannot be made.
    """
    before = os.umask(0o177)
    try:
        with suppress(FileNotFoundError):
            path.unlink()
        server = _UnixServer(str(path), _handler(routes))
    except OSError as error:
        raise KmeshError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return Server(server, where=str(path))
