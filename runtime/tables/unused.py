# SPDX-License-Identifier: Apache-2.0
"""Why a workload of a service gets no connections: `candidate` in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from runtime.model.mesh import HealthPolicy, Locality, Service, ServicePort, Workload
from runtime.tables.endpoints import candidate, family
from runtime.tables.networks import gateway
from runtime.tables.place import Place


def unused(
    service: Service,
    key: str,
    port: ServicePort,
    version: int,
    *,
    workloads: Iterable[Workload],
    place: Place,
) -> Mapping[str, str]:
    """The workloads that serve a service and are not among the endpoints of a port.

    Args:
        service, key: the service and its key.
        port, version: the port, and the address family, 4 or 6.
        workloads: those that serve the service.
        place: this node.

    Returns:
        the reason by uid.
    """
    everyone = {one.uid: one for one in workloads}
    found = {
        uid: candidate(service, key, port, version, workload=one, place=place)
        for uid, one in everyone.items()
    }
    nearest = max((one.rank for one in found.values() if one), default=0)
    reasons = {}
    for uid, one in found.items():
        if one is None:
            reasons[uid] = next(_reasons(service, key, port, version, everyone[uid], place=place))
        elif one.rank < nearest:
            reasons[uid] = f"farther than those in use: {_shared(service, one.rank, place)}"
    return reasons


def _reasons(
    service: Service,
    key: str,
    port: ServicePort,
    version: int,
    workload: Workload,
    *,
    place: Place,
) -> Iterator[str]:
    """What keeps a workload out, the first thing first; the last always holds."""
    balancing = service.load_balancing
    if not workload.healthy and balancing.health_policy is not HealthPolicy.ALLOW_ALL:
        yield "not ready"
    if all(family(address) != version for address in workload.addresses):
        yield f"has no IPv{version} address"
    served = {(one.service_port, one.protocol) for one in workload.services.get(key, ())}
    if (port.service_port, port.protocol) not in served:
        yield f"does not serve port {port.service_port}/{port.protocol}"
    if workload.capacity <= 0:
        yield "its weight is 0"
    if place.network is not None and workload.network != place.network:
        behind = gateway(workload)
        through = f", behind the gateway {behind}, which takes HBONE only" if behind else ""
        yield f"in another network: {workload.network or 'the default one'}{through}"
    if place.rank(balancing, workload) is None:
        wanted = ", ".join(str(scope).lower() for scope in balancing.routing_preference)
        yield (
            f"the service insists on the same {wanted}: this one is at {_where(workload)}, "
            f"this node at {_here(place)}"
        )
    yield "its address or target port cannot be connected to"


def _shared(service: Service, rank: int, place: Place) -> str:
    scopes = [str(scope).lower() for scope in service.load_balancing.routing_preference]
    has = f"shares {', '.join(scopes[:rank])}" if rank else "shares nothing"
    return f"{has} with this node ({_here(place)}), not its {scopes[rank]}"


def _locality(locality: Locality) -> str:
    parts = (locality.region, locality.zone, locality.subzone)
    return "/".join(parts).rstrip("/") or "no known zone"


def _where(workload: Workload) -> str:
    return f"{_locality(workload.locality)}, node {workload.node or 'unknown'}"


def _here(place: Place) -> str:
    return f"{_locality(place.locality)}, node {place.node or 'unknown'}"
