# SPDX-License-Identifier: Apache-2.0
"""Envoy's `ClusterLoadAssignment` to the model's endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from sys import intern
from typing import Any

from runtime.model.http import Endpoints, HttpEndpoint
from runtime.model.mesh import Locality
from runtime.source.envoy.address import socket_address
from runtime.source.envoy.whitelist import Fields
from runtime.source.istiod.wire import BadResourceError

# core.v3.HealthStatus: unknown counts as healthy; degraded ones are used last.
_HEALTHY = frozenset({0, 1})
_DEGRADED = 5
_TRANSPORT = "envoy.transport_socket_match"


def decode_endpoints(name: str, wire: Any) -> Endpoints:
    """Turn a `ClusterLoadAssignment` into the model.

    Raises:
        BadResourceError: it cannot be accepted.
    """
    fields = Fields(wire)
    beyond: list[str] = []
    endpoints: list[HttpEndpoint] = []
    for group in fields.take("endpoints"):
        endpoints += _group(group, beyond)
    overprovisioning = _policy(fields.take("policy"), beyond)
    fields.ignore("cluster_name")
    beyond += fields.rest()
    return Endpoints(
        name=name,
        endpoints=tuple(endpoints),
        overprovisioning_percent=overprovisioning,
        beyond=tuple(dict.fromkeys(beyond)),
    )


def _policy(wire: Any, beyond: list[str]) -> int:
    if wire is None:
        return 140
    fields = Fields(wire, "policy.")
    factor: int = fields.wrapped("overprovisioning_factor", 140)
    beyond += fields.rest()
    return factor


def _group(wire: Any, beyond: list[str]) -> Iterator[HttpEndpoint]:
    fields = Fields(wire, "endpoints.")
    locality = _locality(fields.take("locality"))
    weight, priority = fields.wrapped("load_balancing_weight", 0), fields.take("priority")
    members = fields.take("lb_endpoints")
    fields.ignore("metadata", "proximity")
    beyond += fields.rest()
    for member in members:
        made = _endpoint(member, beyond)
        if made is None:
            continue
        address, port, share, healthy, labels = made
        yield HttpEndpoint(
            address=address,
            port=port,
            weight=share,
            healthy=healthy,
            locality=locality,
            locality_weight=weight,
            priority=priority,
            labels=labels,
        )


def _locality(wire: Any) -> Locality:
    if wire is None:
        return Locality()
    return Locality(intern(wire.region), intern(wire.zone), intern(wire.sub_zone))


def _endpoint(wire: Any, beyond: list[str]) -> tuple[Any, ...] | None:
    fields = Fields(wire, "lb_endpoints.")
    status = fields.take("health_status")
    weight = fields.wrapped("load_balancing_weight", 1)
    metadata = fields.take("metadata")
    endpoint = fields.take("endpoint")
    beyond += fields.rest()
    if status == _DEGRADED:
        beyond.append("lb_endpoints.health_status: DEGRADED")
    if weight == 0:
        raise BadResourceError("an endpoint has the weight 0")
    if endpoint is None:
        return None
    where = Fields(endpoint, "endpoint.")
    address = where.take("address")
    # Names for logs and for health checks, which are told themselves.
    where.ignore("hostname")
    if not where.take("additional_addresses"):
        where.ignore("health_check_config")
    beyond += where.rest()
    if address is None or address.WhichOneof("address") != "socket_address":
        kind = address.WhichOneof("address") if address is not None else "nothing"
        beyond.append(f"endpoint.address: by {kind}")
        return None
    numbers = socket_address(address.socket_address, where="endpoint.address")
    return *numbers, weight, status in _HEALTHY, _labels(metadata)


def _labels(metadata: Any) -> tuple[tuple[str, str], ...]:
    """What chooses the endpoint's transport (`Cluster.transport_socket_matches`)."""
    if metadata is None or _TRANSPORT not in metadata.filter_metadata:
        return ()
    fields = metadata.filter_metadata[_TRANSPORT].fields
    return tuple(sorted((intern(key), intern(fields[key].string_value)) for key in fields))
