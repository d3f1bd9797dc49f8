# SPDX-License-Identifier: Apache-2.0
"""What the node's Envoy is started with; everything else it is told over ADS.

Its own listener takes the gate's connections on a Unix socket. The PROXY protocol header restores the address
that the client meant, and `use_original_dst` hands the connection to Istiod's listener for that address. Where there is
none, the answer is a 503 that says so. Paths are relative: Envoy is started in its directory, as its
user may not even see what is above it.
"""

from __future__ import annotations

import json
from typing import Any

from runtime.waypoint.stand_in import REASON

LISTENER = "kmesh-node-waypoint"
LISTEN, ADMIN, ADS = "listen.sock", "admin.sock", "ads.sock"
_OWNER_ONLY = 0o600
_TYPES = "type.googleapis.com/envoy"
_EXTENSIONS = f"{_TYPES}.extensions"
_HIDES_REASONS = "envoy.reloadable_features.hide_transport_failure_reason_in_response_body"
_NO_LISTENER = "the node's waypoint has no listener for this address"


def bootstrap(*, node: str, heap: int) -> str:
    """Envoy's bootstrap, as JSON.

    Args:
        node: this node's name, for logs.
        heap: bytes of memory that its heap may take; above, new requests are refused.
    """
    return json.dumps(
        {
            "node": {"id": f"kmesh-waypoint~{node}", "cluster": "kmesh-node-waypoint"},
            "admin": {"address": _pipe(ADMIN)},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": True,
                    "grpc_services": [{"envoy_grpc": _stream()}],
                },
                # Without a time limit: an Envoy that was told nothing is not ready.
                "cds_config": _ads(),
                "lds_config": _ads(),
            },
            "static_resources": {
                # The names by which Istiod's resources call whoever feeds a proxy.
                "clusters": [_feeder("xds-grpc"), _feeder("sds-grpc")],
                "listeners": [_entry()],
            },
            "bootstrap_extensions": [
                # Istiod's tunnels go by internal listeners.
                {
                    "name": "envoy.bootstrap.internal_listener",
                    "typed_config": {
                        "@type": f"{_EXTENSIONS}.bootstrap.internal_listener.v3.InternalListener"
                    },
                }
            ],
            "overload_manager": _bounds(heap),
            # A 503 says why: that an endpoint insists on certificates, of which there are none here.
            "layered_runtime": {
                "layers": [{"name": "kmesh", "static_layer": {_HIDES_REASONS: False}}]
            },
        },
        indent=1,
    )


def _stream() -> dict[str, Any]:
    """Soon again after the daemon was started anew: nobody else is waiting in line."""
    waits = {"base_interval": "0.1s", "max_interval": "2s"}
    return {"cluster_name": "xds-grpc", "retry_policy": {"retry_back_off": waits}}


def _ads() -> dict[str, Any]:
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _pipe(name: str) -> dict[str, Any]:
    return {"pipe": {"path": name, "mode": _OWNER_ONLY}}


def _feeder(name: str) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": ADS}}}}
    options = f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _entry() -> dict[str, Any]:
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "route_config": {
            "name": LISTENER,
            "virtual_hosts": [
                {
                    "name": "nothing",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {
                                "status": 503,
                                "body": {"inline_string": _NO_LISTENER + "\n"},
                            },
                            "response_headers_to_add": [
                                {"header": {"key": REASON, "value": _NO_LISTENER}}
                            ],
                        }
                    ],
                }
            ],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": LISTENER,
        "address": _pipe(LISTEN),
        "use_original_dst": True,
        "listener_filters": [
            {
                "name": "envoy.filters.listener.proxy_protocol",
                "typed_config": {
                    "@type": f"{_EXTENSIONS}.filters.listener.proxy_protocol.v3.ProxyProtocol"
                },
            }
        ],
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }


def _bounds(heap: int) -> dict[str, Any]:
    """Memory goes back to the kernel near the bound, and at it new requests are refused."""

    def action(name: str, share: float) -> dict[str, Any]:
        threshold = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}}
        return {"name": f"envoy.overload_actions.{name}", "triggers": [threshold]}

    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": {
                    "@type": f"{_EXTENSIONS}.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": heap,
                },
            }
        ],
        "actions": [action("shrink_heap", 0.9), action("stop_accepting_requests", 0.97)],
    }
