# SPDX-License-Identifier: Apache-2.0
"""Envoy's messages as its own documentation writes them, and what was recorded from a real Istiod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format

from runtime.model.http import Cluster, Endpoints, Listener, Route, RouteTable
from runtime.source.envoy.decode import TYPE_URLS, decode
from runtime.source.envoy.messages import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    message_class,
    type_url,
)
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryResponse

DATA = Path(__file__).parents[2] / "data/xds/bookstore"
FILES = {
    CLUSTER: "ads-Cluster.pb",
    ENDPOINTS: "ads-ClusterLoadAssignment.pb",
    LISTENER: "ads-Listener.pb",
    ROUTES: "ads-RouteConfiguration.pb",
}
HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def message(kind: str, text: str) -> Any:
    """A message from protobuf's text format."""
    made = message_class(kind)()
    return text_format.Parse(text, made)


def packed(kind: str, text: str = "") -> str:
    """An `Any` of that message, as a field's value in text format."""
    payload = message(kind, text).SerializeToString()
    value = "".join(f"\\x{byte:02x}" for byte in payload)
    return f'{{ type_url: "{type_url(kind)}" value: "{value}" }}'


def recorded(kind: str) -> dict[str, Any]:
    """The recorded resources of a type, decoded, by name."""
    response = DiscoveryResponse.FromString((DATA / FILES[kind]).read_bytes())
    assert {TYPE_URLS[each.type_url] for each in response.resources} == {kind}
    return dict(decode(kind, each.value) for each in response.resources)


def payloads(kind: str) -> list[bytes]:
    response = DiscoveryResponse.FromString((DATA / FILES[kind]).read_bytes())
    return [each.value for each in response.resources]


def cluster(text: str, name: str = "c") -> Cluster:
    kind = "" if "type: " in text or "cluster_type" in text else "type: EDS"
    made = message(CLUSTER, f'name: "{name}" {kind} {text}')
    result = decode(CLUSTER, made.SerializeToString())[1]
    assert isinstance(result, Cluster)
    return result


def endpoints(text: str) -> Endpoints:
    made = message(ENDPOINTS, f'cluster_name: "c" {text}')
    result = decode(ENDPOINTS, made.SerializeToString())[1]
    assert isinstance(result, Endpoints)
    return result


def listener(text: str) -> Listener:
    made = message(LISTENER, f'name: "l" {text}')
    result = decode(LISTENER, made.SerializeToString())[1]
    assert isinstance(result, Listener)
    return result


def table(text: str) -> RouteTable:
    made = message(ROUTES, f'name: "t" {text}')
    result = decode(ROUTES, made.SerializeToString())[1]
    assert isinstance(result, RouteTable)
    return result


TO_C = 'route { cluster: "c" timeout {} }'


def route(text: str = TO_C, *, match: str = 'prefix: "/"', host: str = "", more: str = "") -> Route:
    """A route, alone on its virtual host and table.

    Args:
        text: its fields but the match.
        match: its match's fields.
        host: fields of the virtual host.
        more: fields of the table.
    """
    made = table(
        f'virtual_hosts {{ name: "h" domains: "*" routes {{ match {{ {match} }} {text} }} {host} }}'
        f" {more}"
    )
    return made.virtual_hosts[0].routes[0]
