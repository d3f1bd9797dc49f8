# SPDX-License-Identifier: Apache-2.0
"""Telling the gate what to do, over its Unix socket (runtime/gate/control.c)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.errors import KmeshError

_ANSWER = 4096


class GateError(KmeshError):
    """The gate is not there, or refuses."""


@dataclass(frozen=True, slots=True)
class Ejected:
    """An endpoint that is not used by one network namespace's requests to a cluster, by its number."""

    cluster: int
    address: IPv4Address | IPv6Address
    port: int
    netns: int

    @classmethod
    def of(cls, word: str) -> Ejected:
        cluster, place, netns = word.split("/")
        host, _, port = place.rpartition(":")
        address = IPv6Address(host.strip("[]"))
        return cls(int(cluster, 16), address.ipv4_mapped or address, int(port), int(netns))


class Gate:
    """A conversation with a running gate, a context manager.

    Args:
        path: its socket.
        seconds: how long to wait for an answer; none takes it more than a moment.

    Raises:
        GateError: nobody listens there.
    """

    def __init__(self, path: Path, *, seconds: float = 10) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(seconds)
        try:
            self._socket.connect(os.fspath(path))
        except OSError as error:
            self._socket.close()
            raise GateError(f"no gate at {path}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _ask(self, command: str, descriptors: Sequence[int] = ()) -> str:
        try:
            socket.send_fds(self._socket, [command.encode()], list(descriptors))
            answer = self._socket.recv(_ANSWER).decode()
        except OSError as error:
            raise GateError(f"the gate at {self._path}: {error}") from error
        verdict, _, rest = answer.partition(" ")
        if verdict != "ok":
            raise GateError(f"the gate refuses `{command}`: {rest or 'it has ended'}")
        return rest

    def add_space(self, cookie: int, netns: Path) -> int:
        """Have it listen in a network namespace. Idempotent.

        Args:
            cookie: the namespace's, as `netns_cookie` tells.
            netns: /proc/PID/ns/net, or a bind mount of one.

        Returns:
            the port on loopback.

        Raises:
            GateError: it cannot.
        """
        try:
            handle = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise GateError(f"network namespace {netns}: {error.strerror}") from error
        try:
            return int(self._ask(f"space {cookie}", [handle]))
        finally:
            os.close(handle)

    def drop_space(self, cookie: int) -> None:
        """No new connections there; those that are there go on to their end."""
        self._ask(f"drop {cookie}")

    def set_waypoint(self, path: Path | str) -> None:
        """Where the node's waypoint listens, a Unix socket; an empty path: there is none.

        Raises:
            GateError: the path is too long for a Unix socket.
        """
        self._ask(f"waypoint unix:{path}")

    def status(self) -> Mapping[str, int]:
        """What there is: pid, spaces, sessions, busy and idle upstreams, handing_over."""
        words = (word.partition("=") for word in self._ask("status").split())
        return {name: int(value) for name, _, value in words}

    def ejected(self) -> list[Ejected]:
        """Endpoints that outlier detection has out now; the first of them, where they are many."""
        return [Ejected.of(word) for word in self._ask("ejected").split()]

    def log_requests(self, *, one_in: int) -> None:
        """Tell the access log of one in so many requests; of none with 0. Kept over hand-over."""
        self._ask(f"access-log {one_in}")

    def succeed(self) -> None:
        """Started beside another gate, it takes its place, and its socket.

        Raises:
            GateError: it cannot.
        """
        self._ask("succeed")

    def stop(self) -> None:
        """End it, and with it every connection that it holds."""
        self._ask("stop")


__all__ = ["Ejected", "Gate", "GateError"]
