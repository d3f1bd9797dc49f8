# SPDX-License-Identifier: Apache-2.0
"""Metrics of the node's waypoint, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class WaypointCollector(Collector):
    """Turns the waypoint's status into metrics whenever it is asked.

    Args:
        status: gives `on`, and with it ready, accepted, starts, crashes, refused, and nacks by type.
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        if not status["on"]:
            return
        gauges = {
            "ready": ("1 when the Envoy of this node serves.", status["ready"]),
            "accepted": ("1 when it has accepted all that Istiod sent.", status["accepted"]),
            "refused_resources": ("Resources that it does not take.", len(status["refused"])),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"kmesh_node_waypoint_{name}", text, value=float(value))
        for name, text in (
            ("starts", "How often it was started."),
            ("crashes", "How often it ended by itself."),
        ):
            yield CounterMetricFamily(f"kmesh_node_waypoint_{name}", text, value=status[name])
        text = "Responses that it refused, by resource type."
        refusals = CounterMetricFamily("kmesh_node_waypoint_nacks", text, labels=["type"])
        for kind, count in status["nacks"].items():
            refusals.add_metric([kind], count)
        yield refusals
