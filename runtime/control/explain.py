# SPDX-License-Identifier: Apache-2.0
"""What happens to a connection: read from the tables that the programs read, named by the daemon.

Where it goes is never computed from the configuration: it is looked up in the kernel, as the
programs do. The configuration only gives the names, and the reasons for what is not there. So a
kernel that lags behind shows, and without a daemon the same answer comes, without names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.control.known import Claim, Known
from runtime.control.question import Question
from runtime.kernel.reader import PinnedTables
from runtime.model.mesh import Workload
from runtime.tables.endpoints import family
from runtime.tables.lookup import (
    PROTOCOLS,
    Destination,
    FrontendName,
    Share,
    find_destination,
    frontends_of,
)

Json = Mapping[str, Any]

_ELSEWHERE = "not a service: a connection goes where it was going"


def explain(question: Question, tables: PinnedTables, *, known: Known | None) -> Json:
    """Answer a question.

    Args:
        question: the address.
        tables: the kernel's.
        known: what the daemon knows; None when it is down.
    """
    found = _destinations(question, tables)
    listed = [_destination(frontend, to, known=known) for frontend, to in found]
    return {
        "address": str(question.address),
        "port": question.port,
        "protocol": question.protocol,
        "read_from": "daemon" if known else "kernel maps",
        "verdict": "service" if listed else "direct",
        "meaning": "" if listed else _why_direct(question, tables, known=known),
        "destinations": listed,
        "workloads": _workloads(question, known),
        "managed": _managed(tables),
        "notes": _notes(known),
    }


def _destinations(
    question: Question, tables: PinnedTables
) -> list[tuple[FrontendName, Destination]]:
    protocols = [question.protocol] if question.protocol else list(PROTOCOLS.values())
    if question.port is None:
        asked = [one for one in frontends_of(tables, question.address) if one.protocol in protocols]
    else:
        asked = [FrontendName(question.address, question.port, name) for name in protocols]
    looked_up = [(frontend, find_destination(tables, frontend)) for frontend in asked]
    return [(frontend, to) for frontend, to in looked_up if to is not None]


def _destination(frontend: FrontendName, to: Destination, *, known: Known | None) -> Json:
    claims = known.claims(frontend) if known else []
    owner = claims[0] if claims else None
    verdict = "refused" if not to.endpoints else "waypoint" if to.to_waypoint else "balanced"
    named = _workloads_behind(frontend, owner, to, known)
    return {
        "frontend": str(frontend),
        "port": frontend.port,
        "protocol": frontend.protocol,
        "verdict": verdict,
        "meaning": _meaning(verdict, to),
        "service": _service(owner) if owner else None,
        "cluster": f"{to.cluster:016x}",
        "waypoint": known.waypoint(known.waypoints(frontend))[1] or None
        if known and to.to_waypoint
        else None,
        "endpoints": [_endpoint(share, named=named, known=known) for share in to.endpoints],
        "unused": _unused(owner, frontend, to, known=known) if known and owner else [],
        "acceleration": _acceleration(frontend, to, known=known),
        "notes": _destination_notes(frontend, to, claims, known=known) if known else [],
    }


def _meaning(verdict: str, to: Destination) -> str:
    count = len(to.endpoints)
    endpoints = f"{count} endpoint" + ("" if count == 1 else "s")
    if verdict == "refused":
        whom = "the waypoint has no instance" if to.to_waypoint else "nobody serves"
        return f"connections are refused at once: {whom}"
    if verdict == "waypoint":
        return f"connections go to the waypoint, {endpoints}, which is told where they were going"
    return f"connections go straight to one of {endpoints}"


def _service(claim: Claim) -> Json:
    service = claim.service
    return {
        "key": service.key,
        "name": service.name,
        "namespace": service.namespace,
        "hostname": service.hostname,
        "port_name": claim.port.name,
        "app_protocol": str(claim.port.app_protocol),
        "balancing": str(service.load_balancing.mode),
    }


def _workloads_behind(
    frontend: FrontendName, owner: Claim | None, to: Destination, known: Known | None
) -> dict[str, Workload]:
    """The workloads that the endpoints may be, by address."""
    if known is None:
        return {}
    keys = [owner.service.key] if owner else []
    if to.to_waypoint:
        keys = known.waypoint(known.waypoints(frontend))[0]
    workloads = [one for key in keys for one in known.serving(key).values()]
    return {str(address): one for one in workloads for address in one.addresses}


def _endpoint(share: Share, *, named: Mapping[str, Workload], known: Known | None) -> Json:
    workload = named.get(str(share.address))
    return {
        "address": str(share.address),
        "port": share.port,
        "weight": share.weight,
        "share_percent": share.percent,
        "workload": _workload(workload, known) if workload and known else None,
    }


def _workload(workload: Workload, known: Known) -> Json:
    return {
        "uid": workload.uid,
        "name": workload.name,
        "namespace": workload.namespace,
        "healthy": workload.healthy,
        "node": workload.node,
        "zone": workload.locality.zone,
        "serves": sorted(workload.services),
        "policies": [
            {"key": one.key, "action": str(one.action), "dry_run": one.dry_run}
            for one in known.policies(workload)
        ],
    }


def _unused(owner: Claim, frontend: FrontendName, to: Destination, *, known: Known) -> list[Json]:
    if to.to_waypoint:
        return []  # whom the waypoint uses is the waypoint's to say
    workloads = known.serving(owner.service.key)
    reasons = known.unused(owner, family(frontend.address))
    return [
        {
            "uid": uid,
            "name": workloads[uid].name,
            "namespace": workloads[uid].namespace,
            "addresses": [str(address) for address in workloads[uid].addresses],
            "reason": reason,
        }
        for uid, reason in sorted(reasons.items())
        if uid in workloads
    ]


def _acceleration(frontend: FrontendName, to: Destination, *, known: Known | None) -> Json | None:
    """Whether data skips TCP where both ends are managed on this node."""
    if known is None or known.acceleration is None or not to.endpoints:
        return None
    if frontend.protocol != "TCP":
        return {"on": False, "reason": "only TCP is accelerated"}
    if to.to_waypoint:
        return {"on": False, "reason": "connections to a waypoint are not accelerated"}
    return {"on": bool(known.acceleration["on"]), "reason": known.acceleration["reason"] or ""}


def _destination_notes(
    frontend: FrontendName, to: Destination, claims: list[Claim], *, known: Known
) -> list[str]:
    if not claims and to.to_waypoint and known.waypoints(frontend):
        return ["a workload's own address, and the workload's own waypoint"]
    if not claims:
        return [f"{known.source} knows no service here: the kernel still has what it said before"]
    owner, *losers = claims
    notes = [f"{one.service.key} claims {frontend} too, and does not get it" for one in losers]
    if not to.to_waypoint and owner.cluster(frontend) != to.cluster:
        notes.append("the kernel has another cluster here than the configuration: it lags behind")
    if not to.to_waypoint and known.bypasses_waypoint(owner):
        name = known.waypoint(owner.service.waypoints)[1]
        notes.append(
            f"goes past the service's waypoint {name}: with app protocol "
            f"{owner.port.app_protocol} the server may speak first"
        )
    failure = known.failure(owner.service)
    return [*notes, f"failed: {failure}"] if failure else notes


def _why_direct(question: Question, tables: PinnedTables, *, known: Known | None) -> str:
    """Why the programs leave a connection alone."""
    others = ", ".join(
        f"{one.port}/{one.protocol}" for one in frontends_of(tables, question.address)
    )
    asked = f"port {question.port}" if question.port else "such port"
    asked += f"/{question.protocol}" if question.protocol and question.port else ""
    if known is None:
        if others:
            return (
                f"the service has no {asked}, only {others}: a connection goes where it was going"
            )
        return _ELSEWHERE
    services = known.services_at(question.address)
    if services:
        name = services[0].key
        reason = known.failure(services[0])
        if others:
            reason = reason or f"it has {others}"
        elif not known.has_network(question.address):
            reason = reason or "the address is another network's"
        tail = f" ({reason})" if reason else ""
        return f"service {name} has no {asked} in the kernel{tail}: a connection goes where it was going"
    own = [one.waypoint for one in known.workloads_at(question.address) if one.waypoint]
    if own:
        name = known.waypoint(own[:1])[1]
        return (
            f"a workload's own address, but past its waypoint {name}: on no {asked} is it known "
            "that the client speaks first"
        )
    if known.workloads_at(question.address):
        return "a workload's own address: a connection goes straight there, unbalanced"
    return _ELSEWHERE


def _workloads(question: Question, known: Known | None) -> list[Json]:
    """The workloads that have the address themselves."""
    return [_workload(one, known) for one in known.workloads_at(question.address)] if known else []


def _managed(tables: PinnedTables) -> Json:
    """Whom all of this concerns: other processes are never touched."""
    namespaces = sum(1 for _ in tables.items("managed_netns"))
    return {"cgroups": tables.governed(), "network_namespaces": namespaces}


def _notes(known: Known | None) -> list[str]:
    if known is None:
        return ["names, reasons and policies are the daemon's to tell; it is down"]
    notes = []
    if not known.is_synced:
        notes.append(f"{known.source} has not given its whole picture yet")
    if known.trouble:
        notes.append(f"the kernel lags behind: {known.trouble}")
    return notes
