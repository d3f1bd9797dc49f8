# SPDX-License-Identifier: Apache-2.0
"""The access log of requests: one line each, beside those of connections and in their style.

The gate tells of requests (runtime/gate/accesslog.c) over a Unix socket, and waits for nobody. Queries are
left out, as secrets are often in them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.kernel.gate import GateError
from runtime.tables.http_stats import By, RouteName
from runtime.telemetry.accesslog import written_time
from runtime.telemetry.directory import Directory, unpacked

_UNKNOWN = "-"
_PACKET = 65536
_TEXT = 160  # KMESH_LOG_TEXT: what is as long was cut
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A request as the gate tells of it; times are nanoseconds, `since` of CLOCK_MONOTONIC.

    `client` is the cookie of the client's socket.
    """

    since: int
    head_ns: int
    end_ns: int
    by: By
    status: int
    request_bytes: int
    response_bytes: int
    netns: int
    client: int
    source: bytes
    service: tuple[bytes, int]
    endpoint: tuple[bytes, int]
    route: int
    method: str
    path: str

    @classmethod
    def of(cls, text: bytes) -> Told:
        """From a line of the gate's.

        Raises:
            ValueError: it is none.
        """
        fields = text.split(b" ", 13)
        if len(fields) != 14:
            raise ValueError(f"{len(fields)} fields")
        numbers = [int(each) for each in fields[:9]]
        method, path = _request(fields[13])
        return cls(
            since=numbers[0],
            head_ns=numbers[1],
            end_ns=numbers[2],
            by=By(numbers[3]),
            status=numbers[4],
            request_bytes=numbers[5],
            response_bytes=numbers[6],
            netns=numbers[7],
            client=numbers[8],
            source=_end(fields[9])[0],
            service=_end(fields[10]),
            endpoint=_end(fields[11]),
            route=int(fields[12]),
            method=method,
            path=path,
        )


def _end(text: bytes) -> tuple[bytes, int]:
    address, _, port = text.partition(b":")
    return bytes.fromhex(address.decode()), int(port)


def _request(line: bytes) -> tuple[str, str]:
    """Method and path of a request's first line, with nothing that could be taken for more than that."""
    method, _, rest = line.partition(b" ")
    target, ended, _ = rest.partition(b" ")
    path, asked, _ = target.partition(b"?")
    cut = "" if ended or asked else "..."
    return escaped(method), escaped(path) + (cut if len(line) >= _TEXT else "")


def escaped(text: bytes, *, also: bytes = b"") -> str:
    """Bytes as printable ASCII, without quotation marks and line ends; `also` what may stay."""
    return "".join(
        chr(byte)
        if (0x20 < byte < 0x7F and byte not in b'"\\') or byte in also
        else f"\\x{byte:02x}"
        for byte in text
    )


def line(told: Told, directory: Directory, routes: Mapping[int, RouteName], *, boot_ns: int) -> str:
    """A request as a line of the access log.

    Args:
        told: what the gate told.
        directory: who has which address.
        routes: by number.
        boot_ns: when CLOCK_MONOTONIC was 0, nanoseconds since the epoch.
    """
    service = directory.service_at(told.service[0])
    workload = directory.workload_at(told.endpoint[0]) if told.endpoint[1] else None
    where = service or workload
    source = directory.workload_at(told.source)
    name = routes.get(told.route)
    route = escaped(name.label.encode(), also=b" ") if name else _UNKNOWN
    return (
        f"accesslog: {written_time(boot_ns + told.since + told.end_ns)} "
        f"src.addr={unpacked(told.source) if any(told.source) else _UNKNOWN}, "
        f"src.workload={source.name if source else _UNKNOWN}, "
        f"src.namespace={(source and source.namespace) or _UNKNOWN}, "
        f"src.netns={told.netns}, "
        f"dst.addr={_written(told.endpoint)}, "
        f"dst.service={service.hostname if service else _written(told.service)}, "
        f"dst.workload={workload.name if workload else _UNKNOWN}, "
        f"dst.namespace={(where and where.namespace) or _UNKNOWN}, "
        f"start_time={written_time(boot_ns + told.since)}, "
        f"direction=OUTBOUND, protocol=HTTP, "
        f'method={told.method}, path="{told.path}", status={told.status or _UNKNOWN}, '
        f'route="{route}", served_by={told.by.name.lower()}, '
        f"sent_bytes={told.request_bytes}, received_bytes={told.response_bytes}, "
        f"first_byte={_milliseconds(told.head_ns)}, duration={_milliseconds(told.end_ns)}"
    )


def _milliseconds(ns: int) -> str:
    return f"{ns / _NS_PER_MS:.3f}ms"


def _written(end: tuple[bytes, int]) -> str:
    if not end[1]:
        return _UNKNOWN
    ip = unpacked(end[0])
    return f"[{ip}]:{end[1]}" if ip.version == 6 else f"{ip}:{end[1]}"


class HttpLog:
    """Reads what the gate tells, and hands it on as lines. One thread reads.

    Args:
        gate: the gate's control socket: it tells at a socket beside it.
        directory: who has which address.
        routes: gives the routes by number.
        write: takes lines; never waits.

    Attributes:
        fd: readable when there is something.
        on: whether lines are handed on; `also` is told of each request in any case.

    Raises:
        GateError: it cannot be listened there.
    """

    def __init__(
        self,
        gate: Path,
        *,
        directory: Directory,
        routes: Callable[[], Mapping[int, RouteName]],
        write: Callable[[list[str]], object],
    ) -> None:
        self._path = Path(f"{gate}.log")
        self._directory, self._routes, self._write = directory, routes, write
        self.on = False
        self.also: Callable[[Told], object] = lambda _told: None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self._path))
        except OSError as error:
            self._socket.close()
            raise GateError(f"cannot listen at {self._path}: {error.strerror}") from error
        finally:
            os.umask(before)
        self._socket.setblocking(False)
        self.fd = self._socket.fileno()

    def read(self) -> int:
        """Hand on what is there; how many lines it was."""
        count = 0
        while True:
            try:
                packet = self._socket.recv(_PACKET)
            except BlockingIOError:
                return count
            count += self._take(packet)

    def _take(self, packet: bytes) -> int:
        boot_ns, routes = time.time_ns() - time.monotonic_ns(), self._routes()
        lines = []
        for text in packet.splitlines():
            try:
                told = Told.of(text)
            except ValueError:
                continue  # a gate of another version's
            self.also(told)
            if self.on:
                lines.append(line(told, self._directory, routes, boot_ns=boot_ns))
        if lines:
            self._write(lines)
        return len(lines)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._socket.close()
