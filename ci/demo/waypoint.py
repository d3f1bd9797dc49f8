# SPDX-License-Identifier: Apache-2.0
"""What the demo's waypoint is told: a stock Envoy's configuration, as anyone would write it."""

from __future__ import annotations

from typing import Any

from ci.demo.control_plane import CART, PODS, WAYPOINT_POD, WAYPOINT_PORT

_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def _manager() -> dict[str, Any]:
    """/admin is forbidden; the rest goes to the pods, and says by whose hand."""
    routes = [
        {"match": {"prefix": "/admin"}, "direct_response": {"status": 403}},
        {
            "match": {"prefix": "/"},
            "route": {"cluster": "cart"},
            "response_headers_to_add": [{"header": {"key": "x-waypoint", "value": "demo"}}],
        },
    ]
    return {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "waypoint",
        "route_config": {"virtual_hosts": [{"name": "cart", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }


def config() -> dict[str, Any]:
    """Who was going to the cart's address finds a filter chain, by the PROXY header that he brings."""
    proxy = {"@type": f"{_FILTERS}.listener.proxy_protocol.v3.ProxyProtocol"}
    chain = {
        "filter_chain_match": {"prefix_ranges": [{"address_prefix": CART, "prefix_len": 32}]},
        "filters": [{"name": "http", "typed_config": _manager()}],
    }
    listener = {
        "name": "waypoint",
        "address": _at(WAYPOINT_POD, WAYPOINT_PORT),
        "listener_filters": [{"name": "proxy", "typed_config": proxy}],
        "filter_chains": [chain],
    }
    endpoints = [{"endpoint": {"address": _at(address, 8080)}} for address in PODS.values()]
    cluster = {
        "name": "cart",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "cart", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _at(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}
