# SPDX-License-Identifier: Apache-2.0
"""Small meshes for the planner, and the recorded one."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from runtime.model.http import (
    Cluster,
    Endpoints,
    Forward,
    HttpEndpoint,
    HttpPort,
    Listener,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.http_picture import HttpChange, HttpPicture
from runtime.model.mesh import Service, Workload
from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from runtime.source.istiod.decode_mesh import MeshDecoder
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from tests.source.envoy.wire import DATA, recorded

ANY = RouteMatch(PathMatch(PathKind.PREFIX, "/"))
TO_C = Forward((WeightedCluster("c"),))
HOME = HttpEndpoint(address=ip_address("10.0.0.1"), port=8080)


def route(**fields: Any) -> Route:
    made: dict[str, Any] = {"match": ANY, "action": TO_C} | fields
    return Route(**made)


def picture(
    *routes: Route,
    port: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    table: dict[str, Any] | None = None,
    endpoints: tuple[HttpEndpoint, ...] = (HOME,),
) -> HttpPicture:
    """One port with one virtual host and one cluster; keyword arguments change fields of each."""
    where: dict[str, Any] = {"listener": "l", "address": None, "port": 80, "table": "t"}
    one = HttpPort(**(where | (port or {})))
    hosts = (VirtualHost("h", ("*",), routes or (route(),)),)
    routes_of: dict[str, Any] = {"name": "t", "virtual_hosts": hosts}
    made = RouteTable(**(routes_of | (table or {})))
    target = Cluster(**({"name": "c", "endpoints_name": "c"} | (cluster or {})))
    result = HttpPicture()
    result.take(
        HttpChange(
            complete=True,
            listeners={"l": Listener(name="l", ports=(one,))},
            tables={"t": made},
            clusters={"c": target},
            endpoints={"c": Endpoints(name="c", endpoints=endpoints)},
        )
    )
    return result


def bookstore() -> HttpPicture:
    """What Istiod sent for the samples."""
    result = HttpPicture()
    result.take(
        HttpChange(
            complete=True,
            listeners=recorded(LISTENER),
            tables=recorded(ROUTES),
            clusters=recorded(CLUSTER),
            endpoints=recorded(ENDPOINTS),
        )
    )
    return result


def bookstore_mesh() -> tuple[list[Service], dict[str, Workload]]:
    """The services and workloads beside it."""
    response = DeltaDiscoveryResponse.FromString((DATA / "delta-Address.pb").read_bytes())
    decode = MeshDecoder().decode
    all_of_it = [decode(each.name, each.resource.value) for each in response.resources]
    services = [each for each in all_of_it if isinstance(each, Service)]
    return services, {each.uid: each for each in all_of_it if isinstance(each, Workload)}
