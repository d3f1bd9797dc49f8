# SPDX-License-Identifier: Apache-2.0
"""Metrics in Prometheus' text format, all with the prefix `kmesh_`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_GAUGES = {
    "services": "Services that the source describes.",
    "workloads": "Workloads that the source describes.",
    "policies": "Authorization policies that the source describes.",
    "rejected_resources": "Resources that cannot be accepted; their last good version serves.",
    "failed_resources": "Resources that the data path could not take.",
    "managed_cgroups": "Control groups whose processes are managed.",
    "managed_namespaces": "Network namespaces whose processes are managed.",
    "managed_pods": "Pods of this node that are governed.",
    "start_seconds": "From the start of the process until it was first ready.",
}
_COUNTERS = {
    "updates": "Updates taken from the source.",
    "demotions": "Paths that failed to start and gave way to the next.",
}


class _Collector(Collector):
    """Turns the daemon's status into metrics whenever it is asked."""

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        yield _info("build", "Version of the daemon.", version=status["version"])
        yield _info("mode", "The path that serves, or none.", mode=status["mode"])
        ready = GaugeMetricFamily(
            "kmesh_ready", "1 when the data path serves what the source says."
        )
        ready.add_metric([], float(status["ready"]))
        yield ready
        if status["authorization"]:
            text = "0 while the enforcement of policies is switched off (kmeshctl authz disable)."
            enforced = float(status["authorization"]["enforced"])
            yield GaugeMetricFamily("kmesh_authorization_enforced", text, value=enforced)
        yield _capabilities(status["capabilities"])
        counts: Mapping[str, Any] = status["counts"]
        for name, text in _GAUGES.items():
            if counts.get(name) is not None:
                yield GaugeMetricFamily(f"kmesh_{name}", text, value=counts[name])
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"kmesh_{name}", text, value=counts[name])


def _info(name: str, text: str, **labels: str) -> Metric:
    family = GaugeMetricFamily(f"kmesh_{name}_info", text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _capabilities(verdicts: Mapping[str, str]) -> Metric:
    text = "1 for the prober's verdict on each capability."
    family = GaugeMetricFamily("kmesh_capability", text, labels=["capability", "verdict"])
    for capability, verdict in verdicts.items():
        family.add_metric([capability, verdict], 1)
    return family


def renderer(status: Callable[[], Mapping[str, Any]], *more: Collector) -> Callable[[], bytes]:
    """A function that renders all metrics now.

    Args:
        status: gives the daemon's status, with version, mode, ready, capabilities and counts.
        more: what has metrics of its own.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status))
    for collector in more:
        registry.register(collector)
    ProcessCollector(namespace="kmesh", registry=registry)
    return lambda: generate_latest(registry)
