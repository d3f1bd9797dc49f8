# SPDX-License-Identifier: Apache-2.0
"""The node's waypoint in `kmeshctl status`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runtime import ui


def node_waypoint_lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether there is one, what it took over, and what it refuses."""
    if not facts["on"]:
        yield "waypoint", f"of the node: off ({facts['reason']})"
        return
    state = "serves" if facts["ready"] else "does not serve"
    told = [f"Envoy {facts['version']}" if facts["version"] else "Envoy", state]
    if facts["pid"]:
        told[0] += f" (process {facts['pid']})"
    if not facts["connected"]:
        told.append("is not connected")
    elif facts["accepted"]:
        told.append("has accepted everything")
    refusals = sum(facts["nacks"].values())
    if refusals:
        told.append(f"refused {ui.count(refusals, 'response')} so far")
    if facts["crashes"]:
        told.append(f"ended {ui.count(facts['crashes'], 'time')} by itself")
    yield "waypoint", f"of the node: {', '.join(told)}"
    for trouble in (facts["trouble"], facts["gate"], facts["caution"]):
        if trouble:
            yield "", trouble
    for resource, reason in facts["refused"].items():
        yield "", f"refuses {resource}: {reason}"
