# SPDX-License-Identifier: Apache-2.0
"""Requests to services with routes, as metrics: how many, what came of them, how long they took.

Series are bounded: requests by service and route (`MOST_SERIES` routes, the rest as "-"), times and
bytes by service.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.kernel.http_stats import RouteStats
from runtime.tables.enhanced_layout import RouteStat
from runtime.tables.http_stats import CLASSES, CODES, By, bounds
from runtime.telemetry.http_totals import Totals, plus

# enum kmesh_gate_counter: what an operator makes of it.
PASSED = {
    "not_idle": "an earlier request of the connection was not answered yet",
    "not_whole": "not one whole plain HTTP/1.1 request in one piece: split, large, chunked, an upgrade or an unusual head",
    "not_routed": "a route that is not the kernel's: of the waypoint, or answered by the gate",
    "no_upstream": "no idle connection to the endpoint yet: the gate opened one",
    "upstream_full": "the connection to the endpoint was full, or closing",
    "no_slot": "too many connections to services with routes at once",
    "paused": "while one gate handed over to the next",
}
_FIRST_BUCKET = 6  # below 64 us there is hardly anything to tell apart
_POINTS = ("head", "end")


class HttpMetrics(Collector):
    """Nothing until `attach`; may be asked from any thread.

    Attributes:
        log_dropped: gives the access log's lines that were dropped on this side.
    """

    def __init__(self) -> None:
        self._stats: RouteStats | None = None
        self._passed: Callable[[], Mapping[str, int]] = dict
        self._totals = Totals()
        self._lock = threading.Lock()
        self.log_dropped: Callable[[], int] = lambda: 0

    def attach(self, stats: RouteStats, passed: Callable[[], Mapping[str, int]]) -> None:
        """Tell of these counters from now on.

        Args:
            stats: the routes'.
            passed: what became of the messages of clients (`DataPath.gate_counters`).
        """
        self._passed, self._stats = passed, stats

    def detach(self) -> None:
        self._stats = None

    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        if stats is None:
            return
        with self._lock:
            rest = [("other", stats.other().stat), ("unrouted", stats.unrouted().stat)]
            self._totals.take(stats.read(), rest)
            series = dict(self._totals.series)
            folded = self._totals.folded + stats.folded
        yield _requests({tuple(name): stat for name, stat in series.items()})
        services: dict[str, RouteStat] = {}
        for name, stat in series.items():
            before = services.get(name.service)
            services[name.service] = plus(before, stat) if before else stat
        yield _codes(services)
        yield from _bytes(services)
        yield _times(services)
        yield from self._about_the_path(stats)
        gauge = Metric("kmesh_http_routes_folded", "Routes without a series of their own.", "gauge")
        gauge.add_sample("kmesh_http_routes_folded", {}, folded)
        yield gauge

    def _about_the_path(self, stats: RouteStats) -> Iterator[Metric]:
        passed = self._passed()
        yield CounterMetricFamily(
            "kmesh_http_taken", "Requests that the kernel sent.", value=passed.get("taken", 0)
        )
        yield CounterMetricFamily(
            "kmesh_http_answered",
            "Requests that the kernel answered itself, without an endpoint.",
            value=passed.get("answered", 0),
        )
        family = CounterMetricFamily(
            "kmesh_http_passed", "Messages that the kernel left to the gate.", labels=["reason"]
        )
        for reason in PASSED:
            family.add_metric([reason], passed.get(reason, 0))
        yield family
        yield CounterMetricFamily(
            "kmesh_http_requests_past_tcp",
            "Requests taken that went into the queue of an endpoint of this node.",
            value=passed.get("shortened", 0),
        )
        yield CounterMetricFamily(
            "kmesh_http_responses_home",
            "Responses that went to their client within the kernel.",
            value=passed.get("home", 0),
        )
        refused = CounterMetricFamily(
            "kmesh_http_heads_not_routed", "Request heads that are no route's.", labels=["reason"]
        )
        for reason, count in stats.verdicts().items():
            refused.add_metric([reason], count)
        yield refused
        yield from _governed(stats)
        yield CounterMetricFamily(
            "kmesh_http_accesslog_lines_dropped",
            "Lines of the HTTP access log that nobody took in time.",
            value=stats.log_dropped() + self.log_dropped(),
        )


def _governed(stats: RouteStats) -> Iterator[Metric]:
    """What circuit breakers and outlier detection did."""
    overflows = CounterMetricFamily(
        "kmesh_http_circuit_breaker_overflows",
        "Requests over a bound of their cluster: those of `connections` waited for one, the others got 503.",
        labels=["bound"],
    )
    for bound, count in stats.overflows().items():
        overflows.add_metric([bound], count)
    yield overflows
    ejections = CounterMetricFamily(
        "kmesh_http_ejections",
        "Ejections of endpoints by what they did in a row; `refused`: too many were out already.",
        labels=["cause"],
    )
    for cause, count in stats.ejections().items():
        ejections.add_metric([cause], count)
    yield ejections
    gauge = Metric("kmesh_http_ejected_endpoints", "Endpoints that are ejected now.", "gauge")
    gauge.add_sample("kmesh_http_ejected_endpoints", {}, stats.ejected())
    yield gauge


def _requests(series: Mapping[tuple[str, ...], RouteStat]) -> Metric:
    family = CounterMetricFamily(
        "kmesh_http_requests",
        "HTTP requests that are over, by who served them.",
        labels=["service", "route", "code_class", "by"],
    )
    for name, stat in series.items():
        for by in By:
            for index, code in enumerate(CLASSES):
                if count := stat.requests[by * len(CLASSES) + index]:
                    family.add_metric([*name, code, by.name.lower()], count)
    return family


def _codes(services: Mapping[str, RouteStat]) -> Metric:
    family = CounterMetricFamily(
        "kmesh_http_responses",
        "HTTP responses with the codes that are counted one by one.",
        labels=["service", "code"],
    )
    for service, stat in services.items():
        for code, count in zip(CODES, stat.codes, strict=True):
            if count:
                family.add_metric([service, str(code)], count)
    return family


def _bytes(services: Mapping[str, RouteStat]) -> Iterator[Metric]:
    for field, text in (
        ("request_bytes", "Bytes of HTTP requests, heads and bodies."),
        ("response_bytes", "Bytes of HTTP responses, heads and bodies."),
    ):
        family = CounterMetricFamily(f"kmesh_http_{field}", text, labels=["service", "by"])
        for service, stat in services.items():
            for by in By:
                if count := getattr(stat, field)[by]:
                    family.add_metric([service, by.name.lower()], count)
        yield family


def _times(services: Mapping[str, RouteStat]) -> Metric:
    family = HistogramMetricFamily(
        "kmesh_http_request_duration_seconds",
        "From a request until the head of its response (until=head), or all of it (until=end).",
        labels=["service", "until"],
    )
    for service, stat in services.items():
        for point in _POINTS:
            buckets, sums = getattr(stat, point), getattr(stat, f"{point}_ns")
            family.add_metric([service, point], _cumulative(buckets), sums / 1e9)
    return family


def _cumulative(buckets: tuple[int, ...]) -> list[tuple[str, float]]:
    found, total = [], 0
    for index, count in enumerate(buckets):
        total += count
        if index == len(buckets) - 1:
            found.append(("+Inf", float(total)))
        elif index >= _FIRST_BUCKET:
            found.append((str(bounds(index)[1]), float(total)))
    return found
