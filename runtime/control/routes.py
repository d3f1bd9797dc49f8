# SPDX-License-Identifier: Apache-2.0
"""Where each route runs, and why: the plan of what is known now, as the operator reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.control.http_standing import Standings, as_written
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.model.mesh import Service
from runtime.plan.ability import ability
from runtime.plan.planned import Plan
from runtime.plan.planner import make_plan
from runtime.plan.report import route_rows

Json = Mapping[str, Any]
Hits = Mapping[tuple[str, str, int], Json]
_NOT_FOLLOWED = (
    "HTTP is not followed: start the daemon with --routes, or on a kernel with the enhanced path, "
    "or (from files) with an HTTPRoute for a Service"
)


def describe_routes(
    view: View,
    *,
    why_not: str,
    service: str | None,
    hits: Hits | None = None,
    standings: Standings | None = None,
    nameless: str = "",
) -> Json:
    """Every route with its place, ready for JSON.

    Args:
        view: what is known.
        why_not: why the enhanced path does not run; "" where it does.
        hits: what came to each route, by its table, virtual host and number; None where that is not known.
        standings: what became of the tables in the kernel; None where nothing is brought there.
        service: of this service alone: `namespace/name`, `name.namespace`, a hostname, or a name.
        nameless: why it is not known who the workloads of this node are; "" where it is.

    Raises:
        KmeshError: there is no such service.
    """
    services = chosen(view.services.copy(), service)
    answer = {"serves": not why_not, "why_not": why_not, "known": False, "note": "", "routes": []}
    plan = plan_of(view, why_not=why_not, nameless=nameless)
    if plan is None:
        return answer | {"note": _NOT_FOLLOWED if view.http is None else "HTTP has not come yet"}
    rows = [
        _with_hits(as_written(row, standings or {}), hits) for row in route_rows(plan, services)
    ]
    note = "" if rows else "no service here has HTTP routes"
    return answer | {"known": True, "note": note, "routes": rows}


def plan_of(view: View, *, why_not: str, nameless: str = "") -> Plan | None:
    """The plan of what is known now, for a path or for want of one; None where no HTTP is known."""
    if view.http is None or not view.http.known:
        return None
    return make_plan(
        view.http.copy(),
        ability=ability(why_not, nameless=nameless),
        services=view.services.copy(),
        workloads=view.workloads.copy(),
        policies=view.policies.copy(),
        at_waypoints=view.at_waypoints,
    )


def _with_hits(row: Json, hits: Hits | None) -> Json:
    """One table may serve many services: each virtual host has routes, and counts, of its own."""
    found = (hits or {}).get((row["table"], row["virtual_host"] or "", row["index"]))
    return {**row, "counts": found}


def chosen(services: Mapping[str, Service], wanted: str | None) -> list[Service]:
    """The services of a name, or all.

    Raises:
        KmeshError: there is none.
    """
    if wanted is None:
        return list(services.values())
    found = [each for each in services.values() if wanted in _names(each)]
    if not found:
        raise KmeshError(
            f"no service {wanted!r}", hint="`kmeshctl services` lists them; write NAMESPACE/NAME"
        )
    return found


def _names(service: Service) -> set[str]:
    return {
        service.key,
        service.hostname,
        service.name,
        f"{service.namespace}/{service.name}",
        f"{service.name}.{service.namespace}",
    }
