# SPDX-License-Identifier: Apache-2.0
"""Metrics of what the source said: which resources do not serve as they should, and how Istiod fares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MOST_NAMED = 50  # series of each kind: a broken mesh must not break the one who watches it
_LONGEST = 200  # characters of a reason

_TROUBLES = {
    "rejected": "1 for a resource that cannot be accepted; its last good version serves.",
    "failed": "1 for a resource that the data path could not take.",
}
_GAUGES = {
    "connected": "1 while a stream from Istiod is open and answered.",
    "synced": "1 once all resource types have been received whole.",
    "services": "Services that Istiod described.",
    "workloads": "Workloads that Istiod described.",
    "policies": "Authorization policies that Istiod described.",
}
_COUNTERS = {
    "streams": "Streams that were opened to Istiod.",
    "failures": "Streams that ended before they gave anything, or with what made no sense.",
    "responses": "Responses of Istiod.",
    "acks": "Responses that were accepted.",
    "nacks": "Responses with a resource that was refused; the good ones of it were taken.",
}


class SourceCollector(Collector):
    """Turns what is known of the source into metrics whenever it is asked.

    Args:
        sync: gives what `sync` is in the daemon's status.
    """

    def __init__(self, sync: Callable[[], Mapping[str, Any]]) -> None:
        self._sync = sync

    def collect(self) -> Iterable[Metric]:
        sync = self._sync()
        for kind, text in _TROUBLES.items():
            yield from _named(kind, text, sync[kind])
        details = sync["details"]
        if "acks" in details:
            yield from _stream("istiod", details)
            unresolved = details.get("unresolved", {})
            text = "Hostnames of workloads that cannot be resolved now."
            yield GaugeMetricFamily("kmesh_istiod_unresolved", text, value=len(unresolved))
        if details.get("http"):
            yield from _stream("istiod_ads", details["http"])


def _named(kind: str, text: str, reasons: Mapping[str, str]) -> Iterable[Metric]:
    """The first ones by name, and how many more there are."""
    family = GaugeMetricFamily(f"kmesh_{kind}_resource", text, labels=["resource", "reason"])
    for resource, reason in sorted(reasons.items())[:MOST_NAMED]:
        family.add_metric([_line(resource), _line(reason)], 1)
    yield family
    more = f"Resources beside those that kmesh_{kind}_resource names, at most {MOST_NAMED}."
    value = max(len(reasons) - MOST_NAMED, 0)
    yield GaugeMetricFamily(f"kmesh_{kind}_resources_unnamed", more, value=value)


def _line(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _stream(prefix: str, details: Mapping[str, Any]) -> Iterable[Metric]:
    for name, text in _GAUGES.items():
        if name in details:
            yield GaugeMetricFamily(f"kmesh_{prefix}_{name}", text, value=float(details[name]))
    for name, text in _COUNTERS.items():
        yield CounterMetricFamily(f"kmesh_{prefix}_{name}", text, value=details[name])
    last = details.get("last_response")
    if last is not None:
        text = "When Istiod last said something, Unix time."
        yield GaugeMetricFamily(f"kmesh_{prefix}_last_response_timestamp_seconds", text, value=last)
