# SPDX-License-Identifier: Apache-2.0
"""Sending one request through the live path, as a managed process does, and what the path made of it.

Nothing is marked or special about the request: who sends it is known by its socket, which the gate names
in its access log. While one is under way the gate tells of all requests; others are not written down.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import KmeshError
from runtime.kernel.cgroup import CgroupError
from runtime.kernel.leave import move
from runtime.tables.lookup import host_port
from runtime.telemetry.directory import unpacked
from runtime.telemetry.http_log import Told

Json = Mapping[str, Any]
_SECONDS = 30.0
_TOLD_SECONDS = 10.0  # the gate tells twice a second


class TryError(KmeshError):
    """The request could not be sent, or nothing was heard of it."""


@dataclass
class Listening:
    """Waits for what the gate tells of one client; for one at a time."""

    _client: int = 0
    _told: list[Told] = field(default_factory=list)
    _heard: threading.Event = field(default_factory=threading.Event)

    def begin(self, client: int) -> None:
        self._told.clear()
        self._heard.clear()
        self._client = client

    def take(self, told: Told) -> None:
        """To be given all that the gate tells."""
        if told.client and told.client == self._client:
            self._told.append(told)
            self._heard.set()

    def wait(self) -> Told:
        if not self._heard.wait(_TOLD_SECONDS):
            raise TryError("the request was answered, but the gate did not tell of it")
        return self._told[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class From:
    """A managed place: a network namespace, a cgroup, or both; None for the daemon's own."""

    netns: Path | None = None
    cgroup: Path | None = None

    def __str__(self) -> str:
        return str(self.netns or self.cgroup or "the daemon's own namespace")


def try_request(
    head: bytes,
    *,
    address: str,
    port: int,
    place: From,
    listening: Listening,
    name_of: Callable[[int], str | None],
) -> Json:
    """Send a request, and tell its route, endpoint and status.

    Args:
        head: the request, whole.
        address: of the service.
        port: of the service.
        place: where the process is to be that sends it.
        listening: is given all that the gate tells, which tells of all requests now.
        name_of: what a route is called, by the number of its counters' owner.

    Raises:
        TryError: it was not answered, or not heard of.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "runtime.launch.ask"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    timer = threading.Timer(_SECONDS, child.kill)
    timer.start()
    try:
        if place.cgroup is not None:
            _enter(place.cgroup, child.pid)
        told = {
            "netns": str(place.netns or ""), "address": address, "port": port,
            "seconds": _SECONDS / 2,
        }  # fmt: skip
        listening.begin(_say(child, json.dumps(told), place)["cookie"])
        answer = _say(child, head.hex(), place)
    finally:
        timer.cancel()
        child.kill()
        child.communicate()
    seen = listening.wait()
    return {
        "from": str(place),
        "status": answer["status"],
        "reason": answer["reason"],
        "location": answer["location"],
        "route": name_of(seen.route),
        "endpoint": _endpoint(seen),
        "served_by": seen.by.name.lower(),
        "duration_ms": round(seen.end_ns / 1e6, 3),
    }


def _enter(cgroup: Path, pid: int) -> None:
    try:
        move(pid, cgroup)
    except CgroupError as error:
        raise TryError(f"cannot send from {cgroup}: {error}", hint=error.hint) from error


def _say(child: subprocess.Popen[str], line: str, place: From) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(f"{line}\n")
        child.stdin.flush()
        text = child.stdout.readline()
    except OSError as error:
        raise TryError(f"the request's process has ended: {error.strerror}") from error
    if not text:
        raise TryError(f"the request's process has ended, or took more than {_SECONDS:g} s")
    answer: dict[str, Any] = json.loads(text)
    if "error" in answer:
        raise TryError(f"from {place}: {answer['error']}")
    return answer


def _endpoint(seen: Told) -> str:
    address, port = seen.endpoint
    return host_port(unpacked(address), port) if port else ""
