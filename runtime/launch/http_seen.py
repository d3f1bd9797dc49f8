# SPDX-License-Identifier: Apache-2.0
"""What the enhanced path did, for whoever asks: counters, metrics, access log of requests.

It is there from the start of the daemon, and tells of nothing until the path is there (`attach`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import log
from runtime.kernel.gate import Gate, GateError
from runtime.kernel.http_stats import RouteStats
from runtime.launch.http_try import From, Listening, TryError, try_request
from runtime.tables.http_stats import By, RouteCounts, RouteName, quantile
from runtime.telemetry.accesslog import AccessLog
from runtime.telemetry.directory import Directory
from runtime.telemetry.http_log import HttpLog
from runtime.telemetry.http_metrics import PASSED, HttpMetrics

if TYPE_CHECKING:  # a start without HTTP imports none of it
    from runtime.control.explain_request import RulingOf
    from runtime.control.http_standing import Standings

Json = Mapping[str, Any]
Hits = Mapping[tuple[str, str, int], Json]  # by table, virtual host and number of the route

_log = log.get("telemetry")


class HttpSeen:
    """Counters and access log of requests.

    Args:
        directory: who has which address.
        access_log: writes lines.
    """

    def __init__(self, directory: Directory, access_log: AccessLog) -> None:
        self.metrics = HttpMetrics()
        self.ruling_of: RulingOf | None = None
        self.standings: Callable[[], Standings] = dict
        self._directory, self._access_log = directory, access_log
        self._stats: RouteStats | None = None
        self._passed: Callable[[], Mapping[str, int]] = dict
        self._gate = Path()
        self._log: HttpLog | None = None
        self._one_in = 0
        self._sending = threading.Lock()

    def attach(
        self,
        stats: RouteStats,
        *,
        passed: Callable[[], Mapping[str, int]],
        gate: Path,
        ruling_of: RulingOf | None = None,
        standings: Callable[[], Standings] = dict,
    ) -> None:
        """The path is there.

        Args:
            stats: the routes' counters (`HttpPorts.stats`).
            passed: what became of the messages of clients (`DataPath.gate_counters`).
            gate: the gate's control socket.
            ruling_of: what authorization says of cases (`HttpPorts.ruling_of`).
            standings: what became of the tables (`HttpControl.standings`).
        """
        self.ruling_of, self.standings = ruling_of, standings
        self._stats, self._passed, self._gate = stats, passed, gate
        self.metrics.attach(stats, passed)
        try:
            self._log = HttpLog(
                gate,
                directory=self._directory,
                routes=stats.by_number,
                write=self._access_log.write,
            )
        except GateError as error:
            _log.warning("there is no access log of requests: %s", error)
        with suppress(GateError), Gate(gate) as running:
            running.log_requests(one_in=0)  # a daemon before this one may have been killed

    async def run(self) -> None:
        """Read what the gate tells, until cancelled."""
        if self._log is None:
            return
        reader, loop = self._log, asyncio.get_running_loop()
        loop.add_reader(reader.fd, reader.read)
        try:
            await asyncio.Event().wait()
        finally:
            loop.remove_reader(reader.fd)

    def switch_access_log(self, *, one_in: int) -> None:
        """Write one in so many requests down from now on; none with 0, nor where there is no path.

        Raises:
            KmeshError: the gate does not answer.
        """
        if self._log is None:
            return
        with Gate(self._gate) as gate:
            gate.log_requests(one_in=one_in)
        self._one_in = one_in
        self._log.on = one_in > 0

    @property
    def is_attached(self) -> bool:
        return self._stats is not None

    def routes(self) -> Mapping[int, RouteName]:
        """The routes in use, by the number that stands for them."""
        return self._stats.by_number() if self._stats else {}

    def send(self, head: bytes, *, address: str, port: int, place: From) -> Json:
        """Send a request through the path and tell what it made of it. One at a time.

        Raises:
            KmeshError: it could not be sent, or there is no path, or nobody to hear of it.
        """
        if self._log is None:
            raise TryError("no request can be sent: the enhanced path is not there")
        with self._sending, Gate(self._gate) as gate:
            listening = Listening()
            self._log.also = listening.take
            gate.log_requests(one_in=1)
            try:
                return try_request(
                    head,
                    address=address,
                    port=port,
                    place=place,
                    listening=listening,
                    name_of=self._label,
                )
            finally:
                self._log.also = lambda _told: None
                gate.log_requests(one_in=self._one_in)

    def _label(self, number: int) -> str | None:
        name = self.routes().get(number)
        return name.label if name else None

    def hits(self) -> Hits:
        """What came to each route, ready for JSON."""
        if self._stats is None:
            return {}
        return {
            (one.name.table, one.name.host, one.name.index): described(one.counts)
            for one in self._stats.read()
            if one.name
        }

    def status(self) -> Json | None:
        """What the path took and passed, and why; None where it is not."""
        if self._stats is None:
            return None
        passed = self._passed()
        return {
            "taken": passed.get("taken", 0),
            "answered": passed.get("answered", 0),
            "past_tcp": {
                "requests": passed.get("shortened", 0),
                "responses": passed.get("home", 0),
            },
            "passed": [
                {"reason": reason, "count": passed.get(reason, 0), "meaning": meaning}
                for reason, meaning in PASSED.items()
            ],
            "heads_not_routed": {
                reason: count for reason, count in self._stats.verdicts().items() if count
            },
            "at_waypoint": self._at_waypoint(),
            "unrouted": described(self._stats.unrouted()),
            "folded_routes": self._stats.folded,
            "overflows": self._stats.overflows(),
            "ejections": self._stats.ejections(),
            "ejected": self._stats.ejected(),
            "ejected_endpoints": self._ejected(),
            "access_log": {
                "one_in": self._one_in,
                "dropped": self._stats.log_dropped() + self._access_log.dropped,
            },
        }

    def _at_waypoint(self) -> Json:
        """Routes that take a waypoint, as they were really written."""
        from runtime.control.http_standing import summed

        return summed(self.standings().values())

    def _ejected(self) -> list[Json]:
        """Who is out, ready for JSON; nobody where the gate does not say."""
        with suppress(GateError), Gate(self._gate, seconds=2) as gate:
            return [
                {
                    "cluster": f"{one.cluster:016x}",
                    "address": str(one.address),
                    "port": one.port,
                    "netns": one.netns,
                }
                for one in gate.ejected()
            ]
        return []

    def close(self) -> None:
        """Tell of it no longer; the kernel and the gate count on. Idempotent."""
        self.metrics.detach()
        self._stats = None
        if self._log is not None:
            if self._one_in:
                with suppress(GateError), Gate(self._gate) as gate:
                    gate.log_requests(one_in=0)
            self._log.close()
            self._log = None


def described(counts: RouteCounts) -> Json:
    """A route's counts, ready for JSON; times in milliseconds until a response's end."""
    return {
        "hits": counts.hits,
        "taken": counts.taken.requests,
        "by": {by.name.lower(): counts.share(by) for by in By},
        "classes": {
            name: counts.of_class(name) for name in ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
        },
        "codes": {str(code): count for code, count in counts.codes().items()},
        "request_bytes": {by.name.lower(): counts.stat.request_bytes[by] for by in By},
        "response_bytes": {by.name.lower(): counts.stat.response_bytes[by] for by in By},
        "p50_ms": _ms(quantile(counts.stat.end, 0.5)),
        "p99_ms": _ms(quantile(counts.stat.end, 0.99)),
        "p50_head_ms": _ms(quantile(counts.stat.head, 0.5)),
        "p99_head_ms": _ms(quantile(counts.stat.head, 0.99)),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
