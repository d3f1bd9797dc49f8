# SPDX-License-Identifier: Apache-2.0
"""The node's waypoint in the metrics."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from runtime.server.waypoint_metrics import WaypointCollector

SERVES: dict[str, Any] = {
    "on": True,
    "ready": True,
    "accepted": False,
    "starts": 3,
    "crashes": 2,
    "refused": {"listener l": "no"},
    "nacks": {"cluster": 0, "listener": 4},
}


def rendered(status: dict[str, Any]) -> set[str]:
    registry = CollectorRegistry()
    registry.register(WaypointCollector(lambda: status))
    return set(generate_latest(registry).decode().splitlines())


def test_how_it_fares() -> None:
    assert rendered(SERVES) >= {
        "kmesh_node_waypoint_ready 1.0",
        "kmesh_node_waypoint_accepted 0.0",
        "kmesh_node_waypoint_refused_resources 1.0",
        "kmesh_node_waypoint_starts_total 3.0",
        "kmesh_node_waypoint_crashes_total 2.0",
        'kmesh_node_waypoint_nacks_total{type="cluster"} 0.0',
        'kmesh_node_waypoint_nacks_total{type="listener"} 4.0',
    }


def test_nothing_where_there_is_none() -> None:
    assert rendered({"on": False, "reason": "turned off"}) == set()
