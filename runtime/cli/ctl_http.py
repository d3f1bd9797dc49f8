# SPDX-License-Identifier: Apache-2.0
"""Requests of the enhanced path in `kmeshctl status`: how many the kernel took, and why not all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runtime import ui

Json = Mapping[str, Any]
_SHOWN = 10  # ejected endpoints


def http_lines(facts: Json | None) -> Iterator[tuple[str, str]]:
    """Lines for `status`; none where the path does not run."""
    if not facts:
        return
    taken = facts["taken"]
    passed = [one for one in facts["passed"] if one["count"]]
    answered = facts["answered"]
    total = taken + answered + sum(one["count"] for one in passed)
    share = f", {100 * taken / total:.1f} % of what clients sent" if total else ""
    yield "requests", f"{taken} sent by the kernel{share}"
    if answered:
        yield "", f"- {answered} answered by the kernel itself, without an endpoint"
    past = facts["past_tcp"]
    if any(past.values()):
        yield (
            "",
            f"- past TCP: {past['requests']} of these, and {ui.count(past['responses'], 'response')}",
        )
    for one in sorted(passed, key=lambda one: -int(one["count"])):
        yield "", f"- {one['count']} passed to the gate: {one['meaning']}"
    for reason, count in facts["heads_not_routed"].items():
        heads = ui.count(count, "head")
        yield "", f"- {heads} that no route was looked up for: {reason.replace('_', ' ')}"
    yield from _at_waypoint(facts["at_waypoint"])
    unrouted = facts["unrouted"]["hits"]
    if unrouted:
        yield "", f"- {ui.count(unrouted, 'request')} that no route took, or that were refused"
    yield from _governed(facts)
    if facts["folded_routes"]:
        folded = ui.count(facts["folded_routes"], "route")
        yield "", f"- {folded} counted together: there are more than counters"
    dropped = facts["access_log"]["dropped"]
    if dropped:
        yield "", f"- {ui.count(dropped, 'line')} of the access log that nobody took in time"


def _at_waypoint(facts: Json) -> Iterator[tuple[str, str]]:
    """Routes that the path does not serve itself, or not all of them."""
    if facts["routes"]:
        yield "", f"- {ui.count(facts['routes'], 'route')} at the waypoint (`kmeshctl routes`)"
    for one in facts["reasons"]:
        yield "", f"  {one['routes']} for: {one['why']}"
    if facts["partly"]:
        partly = ui.count(facts["partly"], "route")
        yield (
            "",
            f"- {partly} some requests of which take the waypoint: it cannot be told whose they are",
        )
    if facts["tables"]:
        yield (
            "",
            f"- all of {ui.count(facts['tables'], 'route table')} at the waypoint, as the sync state says",
        )


def gate_lines(facts: Json) -> Iterator[tuple[str, str]]:
    """Where the gate is at a limit; none where it has room."""
    if waiting := facts.get("waiting"):
        yield "gate", f"{ui.count(waiting, 'request')} waiting until there is room for a connection"
    if ended := facts.get("ended_early"):
        ends = ui.count(ended, "connection")
        yield "gate", f"{ends} to endpoints ended early, to make room for others"
    if refused := facts.get("pools_full"):
        times = ui.count(refused, "time")
        yield (
            "gate",
            f"too many endpoints in use for the kernel, {times}: requests to them pass to the gate",
        )


def _governed(facts: Json) -> Iterator[tuple[str, str]]:
    """What circuit breakers and outlier detection did."""
    overflows = facts["overflows"]
    refused = overflows["pending"] + overflows["requests"]
    if refused:
        yield "", f"- {ui.count(refused, 'request')} answered with 503: a circuit breaker was open"
    if overflows["connections"]:
        waited = ui.count(overflows["connections"], "request")
        yield "", f"- {waited} waited for a connection: their cluster may have no more"
    ejections = sum(count for cause, count in facts["ejections"].items() if cause != "refused")
    if ejections:
        out = ui.count(facts["ejected"], "endpoint")
        yield "", f"- {ui.count(ejections, 'ejection')} by outlier detection; {out} out now"
    places = {(one["address"], one["port"]) for one in facts["ejected_endpoints"]}
    for address, port in sorted(places)[:_SHOWN]:
        yield "", f"  {ui.host_port(address, port)} is ejected"
